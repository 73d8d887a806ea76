"""Calls under way in a run by slices: what is known of each, and what it comes to at its end."""

from __future__ import annotations

import math

import numpy as np

from broker.core.pulse import MeasuredMany
from pricing.book import FloatArray, IntArray
from simulations.askers import Askers
from simulations.bills import Bills, Work, bill
from simulations.books import Paid
from simulations.counter import Sent
from simulations.foresight import Memory
from simulations.hall import Came, Gone
from simulations.record import Code
from simulations.slots import Slots
from simulations.supply import LieAboutTokens
from simulations.world import World

_COLUMNS = (
    *("place", "arrival_s", "at_s", "tokens_in", "tokens_out", "offer", "account", "number"),
    *("bound", "limit", "rate_in", "rate_out", "rate_call", "hold"),
)
_AT = {name: place for place, name in enumerate(_COLUMNS)}


class Underway:
    """The calls. All numbers of a row are whole below 2^53, or times."""

    def __init__(self, world: World, heard: list[Memory]) -> None:
        scenario, listing = world.scenario, world.listing
        classes, endpoints = scenario.classes, range(listing.size)
        self._world = world
        self._heard = heard
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
        crowd, rows, columns, holds = sent
        askers, grid = askers.only(rows), crowd.grid
        number = grid.numbers[columns]
        facts = np.empty((rows.size, len(_COLUMNS)))
        told = (
            *(askers.place, askers.arrival_s, askers.at_s, askers.tokens_in, askers.tokens_out),
            *(askers.offer_nanos, askers.account, number),
            *(crowd.asked.tokens_in_bound[rows], crowd.tokens_out[rows, 0]),
            *(*grid.rates[:, askers.place, columns], holds),
        )
        for place, column in enumerate(told):
            facts[:, place] = column
        deadline_s = askers.at_s + self._deadline_s[askers.place]
        slots = self._slots.put(facts)
        return Came(slots, number, askers.at_s, askers.tokens_in, askers.tokens_out, deadline_s)

    def end(self, gone: Gone, now_s: float) -> None:
        """Pay for, settle and count the calls that have left."""
        if not gone.slot.size:
            return
        facts = self._slots.take(gone.slot).T
        place, number = facts[_AT["place"]].astype(int), facts[_AT["number"]].astype(int)
        whole = gone.left == 0.0
        heard = ~np.isnan(gone.first_s)
        made = np.where(heard, facts[_AT["tokens_out"]] - np.ceil(gone.left), 0.0)
        np.maximum(made, 0.0, out=made)
        paying = whole | (heard & self._streams[place] & (made > 0.0))
        bills = self._bill(facts, np.where(paying, made, 0.0), paying)
        self._hear(gone, facts[_AT["at_s"]], bills, whole, now_s)
        hold = facts[_AT["hold"]].astype(int)
        paid = Paid(bills.charge_nanos, bills.take_nanos, self._payee[number])
        self._world.books.settle_many(facts[_AT["account"]].astype(int), hold, paid)
        took_s = gone.at_s - facts[_AT["arrival_s"]]
        worth = facts[_AT["offer"]] * self._taste[place, number]
        worth = np.where(whole, worth - self._delay_cost[place] * took_s, 0.0)
        self._count(place, number, worth, took_s, whole, now_s)
        started = np.isfinite(gone.left)
        costs = self._costs[:, number]
        cost = costs[0] * facts[_AT["tokens_in"]] + costs[1] * made + costs[2]
        self._world.tally.add_columns(
            (
                *(place, facts[_AT["arrival_s"]]),
                np.where(whole, int(Code.SERVED), int(Code.LATE)),
                number,
                np.where(paying, gone.first_s - facts[_AT["arrival_s"]], math.nan),
                *(took_s, bills.tokens_in, bills.tokens_out, bills.charge_nanos),
                *(bills.take_nanos, np.where(started, cost / 1_000, 0.0)),
                *(facts[_AT["offer"]], worth, np.ones(place.size, dtype=np.int64)),
            )
        )

    def served_since(self) -> FloatArray:
        """Calls whose answer was whole, by endpoint, since this was asked before."""
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

    def _hear(
        self, gone: Gone, at_s: FloatArray, bills: Bills, whole: np.ndarray, now_s: float
    ) -> None:
        """Tell the pulse how calls ended."""
        pulse = self._world.desk.pulse
        if not whole.all():
            np.subtract.at(pulse.in_flight, gone.server[~whole], 1)
        number = gone.server[whole]
        ttft_ms, duration_ms = (gone.first_s - at_s) * 1_000, (gone.at_s - at_s) * 1_000
        seen = MeasuredMany(ttft_ms[whole], duration_ms[whole], bills.tokens_out[whole])
        pulse.end_many(number, number, seen, now_s)

    def _count(
        self,
        place: IntArray,
        number: IntArray,
        worth: FloatArray,
        took_s: FloatArray,
        whole: np.ndarray,
        now_s: float,
    ) -> None:
        world, classes = self._world, len(self._heard)
        self._served += np.bincount(number[whole], minlength=self._served.size)
        served = np.bincount(place[whole], minlength=classes).tolist()
        worths = np.bincount(place, worth, classes).tolist()
        seconds = np.bincount(place[whole], took_s[whole], classes).tolist()
        for each, calls in enumerate(served):
            if calls:
                world.served[each] += calls
                world.worths[each] += worths[each]
                self._heard[each].hear(seconds[each], now_s, calls)
