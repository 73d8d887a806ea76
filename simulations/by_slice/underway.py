"""Calls under way in a run by slices: what is known of each, and what it comes to at its end."""

from __future__ import annotations

import math

import numpy as np

from broker.core.health.measured import MeasuredMany
from broker.core.outcome import Outcome
from pricing.book import FloatArray, IntArray
from simulations.broker_side.books import Paid
from simulations.by_slice.bills import Bills, Work, bill, metered_out
from simulations.by_slice.counter import Sent
from simulations.by_slice.slots import Slots
from simulations.by_slice.strays import Stray, Strays
from simulations.demand import Foresight
from simulations.measured.record import Code
from simulations.servers.hall import Came, Gone
from simulations.supply import LieAboutTokens
from simulations.traffic.askers import Askers
from simulations.traffic.foresight import Memory
from simulations.world import World

_COLUMNS = (
    *("place", "arrival_s", "at_s", "tokens_in", "tokens_out", "offer", "account", "number"),
    *("bound", "limit", "rate_in", "rate_out", "rate_call", "hold", "attempts", "cost", "cut"),
)
_AT = {name: place for place, name in enumerate(_COLUMNS)}


class Underway:
    """The calls. All numbers of a row are whole below 2^53, or times."""

    def __init__(self, world: World, heard: list[Memory], strays: Strays | None = None) -> None:
        scenario, listing = world.scenario, world.listing
        classes, endpoints = scenario.classes, range(listing.size)
        self._world = world
        self._heard = heard
        self._strays = strays
        self._left: list[tuple[FloatArray, Gone]] = []
        """Those not settled yet: what was known of them, and how they left."""
        self._is_counted_at_once = any(math.isfinite(each.budget_usd) for each in classes)
        """Calls wait for what others give back of their holds."""
        self._is_heard = any(each.foresight is not Foresight.PRICE for each in classes)
        self._slots = Slots(len(_COLUMNS))
        self._served = np.zeros(listing.size)
        self._deadline_s = np.array([each.deadline_s for each in classes])
        self._streams = np.array([each.stream for each in classes])
        self._generates = np.array([each.task.generates for each in classes])
        self._delay_cost = np.array([each.delay_cost_usd_per_s * 1e9 for each in classes])
        listed = [listing.endpoint(number) for number in endpoints]
        self._payee = np.array([listing.payees[each.ledger_account] for each in listed])
        self._take_bps = np.array([[x.take_of(of.domain) for x in listed] for of in classes])
        costs = [each.cost for each in listing.specs]
        self._costs = np.array(
            [(x.rate_in_micros, x.rate_out_micros, x.rate_call_nanos * 1_000) for x in costs]
        ).T.astype(float)
        self._taste = np.array(
            [[x.quality_in(of.domain) ** of.quality_taste for x in listing.specs] for of in classes]
        )
        strategies = [provider.strategy for provider, _ in scenario.endpoints]
        self._claims = np.array(
            [each.multiple if isinstance(each, LieAboutTokens) else 1.0 for each in strategies]
        )

    def begin(self, askers: Askers, sent: Sent) -> Came:
        """Write down who goes where; `askers` are all of the crowd."""
        crowd, rows, columns, holds, strays = sent
        askers, grid = askers.only(rows), crowd.grid
        number = grid.numbers[columns]
        facts = np.empty((rows.size, len(_COLUMNS)))
        told = (
            *(askers.place, askers.arrival_s, askers.at_s, askers.tokens_in, askers.tokens_out),
            *(askers.offer_nanos, askers.account, number),
            *(crowd.asked.tokens_in_bound[rows], crowd.tokens_out[rows, 0]),
            *(*grid.rates[:, askers.place, columns], holds, 1.0, 0.0, 0.0),
        )
        for place, column in enumerate(told):
            facts[:, place] = column
        deadline_s = askers.at_s + self._deadline_s[askers.place]
        slots = self._slots.put(facts)
        if self._strays is not None:
            for row, stray in strays.items():
                self._strays.at[int(slots[rows.searchsorted(row)])] = stray
        return Came(slots, number, askers.at_s, askers.tokens_in, askers.tokens_out, deadline_s)

    def enter(self, strays: Strays) -> Came:
        """Write down the strays whose attempt gets to its server."""
        coming, strays.coming = strays.coming, []
        came, facts = Came.none(), np.array([_facts(each) for each in coming])
        if not coming:
            return came
        slots = self._slots.put(facts)
        strays.at.update(zip(slots.tolist(), coming, strict=True))
        whole = facts.T.astype(int)
        tokens = whole[_AT["tokens_in"]], whole[_AT["tokens_out"]]
        at_s, deadline_s = np.array([(each.comes_s, each.deadline_s) for each in coming]).T
        came = Came(slots, whole[_AT["number"]], at_s, *tokens, deadline_s)
        return came.only(at_s.argsort(kind="stable"))

    def break_off(self, gone: Gone, outcome: Outcome, strays: Strays) -> int:
        """Let an outage end calls; what some have delivered is paid, the others go elsewhere.
        Return how many have ended."""
        facts = self._slots.take(gone.slot)
        heard = ~np.isnan(gone.first_s)
        made = np.where(heard, facts[:, _AT["tokens_out"]] - np.ceil(gone.left), 0.0)
        made = np.maximum(made, 0.0)
        streams = self._streams[facts[:, _AT["place"]].astype(int)]
        committed = heard & streams & (made > 0.0)
        costs = self._cost_nanos(facts.T, made, gone)
        told = zip(gone.slot.tolist(), gone.first_s.tolist(), committed, costs, strict=True)
        for (slot, first_s, is_committed, cost), at_s in zip(told, gone.at_s.tolist(), strict=True):
            stray = strays.at.pop(slot)
            stray.cost_nanos = float(cost)
            if is_committed:
                stray.attempt.first_content_s = first_s
            strays.break_off(stray, outcome, at_s)
        facts[:, _AT["cut"]] = 1.0
        self._left.append((facts[committed], gone.only(committed)))
        return int(committed.sum())

    def fail(self, over: list[tuple[Stray, Code, float]]) -> None:
        """Count calls that have ended without an answer, and free what was held for them."""
        if not over:
            return
        rows = [
            (
                *(each.place, each.arrival_s, code, each.attempt.candidate.number, now_s),
                *(each.cost_nanos, each.offer_nanos, len(each.dispatch.attempts)),
                *(each.account, each.hold_nanos),
            )
            for each, code, now_s in over
        ]
        columns = np.array(rows, dtype=float).T
        none, never = np.zeros(len(over), dtype=np.int64), np.full(len(over), math.nan)
        account, hold = columns[8].astype(int), columns[9].astype(int)
        self._world.books.settle_many(account, hold, Paid(none, none, none))
        place, number, code = (columns[each].astype(int) for each in (0, 3, 2))
        self._world.tally.add_columns(
            (
                *(place, columns[1], code, number, never, columns[4] - columns[1]),
                *(none, none, none, none, columns[5], columns[6], none, columns[7].astype(int)),
            )
        )

    def end(self, gone: Gone, now_s: float) -> None:
        """Let calls leave: the pulse is told at once, and what they come to waits for `settle`."""
        if not gone.slot.size:
            return
        if self._strays is not None and self._strays.at:
            for slot in gone.slot.tolist():
                self._strays.at.pop(slot, None)
        facts = self._slots.take(gone.slot)
        self._tell(gone, facts.T, now_s)
        self._left.append((facts, gone))
        if self._is_counted_at_once:
            self.settle()

    def settle(self) -> None:
        """Pay for and count the calls that have left since."""
        if not self._left:
            return
        rows, parts = zip(*self._left, strict=True)
        self._left = []
        facts, gone = np.concatenate(rows).T, Gone.joined(parts)
        place, number = facts[_AT["place"]].astype(int), gone.server
        whole = gone.left == 0.0
        heard = ~np.isnan(gone.first_s)
        made = np.where(heard, facts[_AT["tokens_out"]] - np.ceil(gone.left), 0.0)
        np.maximum(made, 0.0, out=made)
        paying = whole | (heard & self._streams[place] & (made > 0.0))
        bills = self._bill(facts, np.where(paying, made, 0.0), paying)
        paid = Paid(bills.charge_nanos, bills.take_nanos, self._payee[number])
        hold = facts[_AT["hold"]].astype(int)
        self._world.books.settle_many(facts[_AT["account"]].astype(int), hold, paid)
        took_s = gone.at_s - facts[_AT["arrival_s"]]
        worth = facts[_AT["offer"]] * self._taste[place, number]
        worth = np.where(whole, worth - self._delay_cost[place] * took_s, 0.0)
        self._count(place[whole], number[whole], worth[whole])
        broken_off = np.where(facts[_AT["cut"]] > 0.0, int(Code.CUT), int(Code.LATE))
        self._world.tally.add_columns(
            (
                *(place, facts[_AT["arrival_s"]]),
                np.where(whole, int(Code.SERVED), broken_off),
                number,
                np.where(paying, gone.first_s - facts[_AT["arrival_s"]], math.nan),
                *(took_s, bills.tokens_in, bills.tokens_out, bills.charge_nanos),
                *(bills.take_nanos, self._cost_nanos(facts, made, gone)),
                *(facts[_AT["offer"]], worth, facts[_AT["attempts"]].astype(np.int64)),
            )
        )

    def _cost_nanos(self, facts: FloatArray, made: FloatArray, gone: Gone) -> FloatArray:
        """What calls have cost who served them, before and now."""
        costs = self._costs[:, gone.server]
        cost = costs[0] * facts[_AT["tokens_in"]] + costs[1] * made + costs[2]
        nanos: FloatArray = facts[_AT["cost"]] + np.where(np.isfinite(gone.left), cost / 1_000, 0.0)
        return nanos

    def served_since(self) -> FloatArray:
        """Calls whose answer was whole, by endpoint, since this was asked before; all settled."""
        self.settle()
        served, self._served = self._served, np.zeros(self._served.size)
        return served

    def _bill(self, facts: FloatArray, made: FloatArray, paying: np.ndarray) -> Bills:
        def whole(name: str) -> IntArray:
            column: IntArray = facts[_AT[name]].astype(np.int64)
            return column

        place, number = whole("place"), whole("number")
        tokens_in = np.where(paying, whole("tokens_in"), 0)
        return bill(
            Work(
                tokens_in=tokens_in,
                made=made.astype(np.int64),
                claimed=np.rint(made * self._claims[number]).astype(np.int64),
                tokens_in_bound=whole("bound"),
                tokens_out_max=whole("limit"),
                generates=self._generates[place],
                rates=facts[_AT["rate_in"] : _AT["rate_call"] + 1].astype(np.int64),
                take_bps=self._take_bps[place, number],
            )
        )

    def _tell(self, gone: Gone, facts: FloatArray, now_s: float) -> None:
        """Tell the pulse how calls ended, and callers who care how long they took."""
        pulse, whole = self._world.desk.pulse, gone.left == 0.0
        if not whole.all():
            self._tell_late(gone.only(~whole), facts[:, ~whole])
            gone, facts = gone.only(whole), facts[:, whole]
        number, place = gone.server, facts[_AT["place"]].astype(int)
        made, asked_s = facts[_AT["tokens_out"]].astype(int), facts[_AT["at_s"]]
        tokens_out = metered_out(
            made,
            np.rint(made * self._claims[number]).astype(int),
            facts[_AT["limit"]].astype(int),
            self._generates[place],
        )
        duration_ms, streamed = (gone.at_s - asked_s) * 1_000, self._streams[place]
        # Of an answer that comes whole nobody sees when it began.
        ttft_ms = np.where(streamed, (gone.first_s - asked_s) * 1_000, duration_ms)
        seen = MeasuredMany(ttft_ms, duration_ms, tokens_out)
        sizes = facts[_AT["tokens_in"]].astype(int), tokens_out
        self._world.desk.learn_many(number, sizes, seen, (gone.at_s, streamed))
        pulse.end_many(number, number, seen, now_s)
        if self._is_heard:
            classes = len(self._heard)
            took_s = gone.at_s - facts[_AT["arrival_s"]]
            calls = np.bincount(place, minlength=classes).tolist()
            seconds = np.bincount(place, took_s, classes).tolist()
            for memory, count, total_s in zip(self._heard, calls, seconds, strict=True):
                if count:
                    memory.hear(total_s, now_s, count)

    def _tell_late(self, gone: Gone, facts: FloatArray) -> None:
        """Tell of calls that their deadline has cut."""
        desk, streamed = self._world.desk, self._streams[facts[_AT["place"]].astype(int)]
        nothing = np.isnan(gone.first_s) | ~streamed
        if nothing.any():
            silent, tokens_in = gone.only(nothing), facts[_AT["tokens_in"], nothing].astype(int)
            lasted_ms = (silent.at_s - facts[_AT["at_s"], nothing]) * 1_000
            desk.cut_many(silent.server, tokens_in, lasted_ms, (silent.at_s, streamed[nothing]))
        np.subtract.at(desk.pulse.in_flight, gone.server, 1)

    def _count(self, place: IntArray, number: IntArray, worth: FloatArray) -> None:
        """Count answers that are whole."""
        world, classes = self._world, len(self._heard)
        self._served += np.bincount(number, minlength=self._served.size)
        served = np.bincount(place, minlength=classes).tolist()
        worths = np.bincount(place, worth, classes).tolist()
        for each, calls in enumerate(served):
            world.served[each] += calls
            world.worths[each] += worths[each]


def _facts(stray: Stray) -> tuple[float, ...]:
    """A row for the latest attempt of a stray."""
    attempt, candidate = stray.attempt, stray.attempt.candidate
    rate = candidate.rate
    return (
        *(stray.place, stray.arrival_s, attempt.started_s, stray.tokens_in, stray.tokens_out),
        *(stray.offer_nanos, stray.account, candidate.number),
        *(stray.tokens_in_bound, candidate.tokens_out_max),
        *(rate.rate_in_micros, rate.rate_out_micros, rate.rate_call_nanos, stray.hold_nanos),
        *(len(stray.dispatch.attempts), stray.cost_nanos, 0.0),
    )
