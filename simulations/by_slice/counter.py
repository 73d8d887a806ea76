"""The broker's side of a slice of time: decides about calls in groups, holds, and turns away.

A group takes no more than a small share of the capacity on offer, for its calls do not see each
other: they are decided on the counts of one moment.
"""

from __future__ import annotations

import math
from collections import Counter as Counts
from typing import NamedTuple

import numpy as np

from broker.core.decision import Candidate
from broker.core.many.crowd import NO_LIMIT, Asked, Crowd
from broker.core.many.grid import Grid, build_grid
from broker.core.many.routing import NOBODY, Decisions, route_many, terms
from broker.core.requirements import Requirements
from pricing.book import FloatArray, IntArray, Rate
from simulations.by_slice.strays import Stray, Strays
from simulations.chance import generator
from simulations.demand import ConsumerClass, Foresight
from simulations.measured.record import Code
from simulations.pace import group_of
from simulations.traffic.askers import Askers
from simulations.traffic.foresight import Memory
from simulations.visit import NO_ONE
from simulations.world import World

_ROUTED = -1
"""Instead of a code, where only the decision says why a call goes nowhere."""
_STRAYED = -2
"""Instead of a code, where its server has refused a call, which may go elsewhere."""


class Sent(NamedTuple):
    """Calls that go somewhere; `rows` are those of the crowd, the others aligned with them."""

    crowd: Crowd
    rows: IntArray
    columns: IntArray
    """Of the grid."""
    hold_nanos: IntArray
    """0 for accounts without a budget, which always have enough."""
    strays: dict[int, Stray]
    """Those of them that may come back, by row."""


class Turned(NamedTuple):
    """Calls that go nowhere."""

    rows: IntArray
    codes: IntArray


class Counter:
    """Decides. `heard` is what callers of each class believe a call takes."""

    def __init__(self, world: World, heard: list[Memory], strays: Strays | None = None) -> None:
        classes = world.scenario.classes
        self._world = world
        self._heard = heard
        self._strays = strays
        self._deadline_s = np.array([each.deadline_s for each in classes])
        self._classes = classes
        self._kinds = [_kind(each) for each in classes]
        self._headroom = np.array([each.headroom for each in classes])
        self._longest = np.array([each.longest_part for each in classes])
        self._generates = np.array([each.task.generates for each in classes])
        self._is_wary = np.array([each.foresight is not Foresight.PRICE for each in classes])
        self._has_budget = np.array([math.isfinite(each.budget_usd) for each in classes])
        self._is_choosy = bool(self._is_wary.any() or self._has_budget.any())
        self._chance = generator(world.seed, "routing")
        self._grid: Grid | None = None
        self._group = 1

    def decide(
        self, askers: Askers, leaving: tuple[IntArray, FloatArray], span_s: tuple[float, float]
    ) -> tuple[Sent, Turned]:
        """Decide about calls that ask in a span of time. `leaving` is (endpoint, when) of the calls
        that are to end meanwhile, by time."""
        desk, grid, strays = self._world.desk, self._market(), self._strays
        crowd = Crowd(self._asked(askers), grid, desk.pulse, desk.routing, span_s[0])
        counts = _Counts(desk.pulse.in_flight, leaving)
        columns = np.full(askers.size, NOBODY)
        codes, holds = np.full(askers.size, _ROUTED), np.zeros(askers.size, dtype=np.int64)
        loads, begun, strayed = [], [], dict[int, Stray]()
        begin = 0
        while begin < askers.size:
            part = slice(begin, min(begin + self._group, askers.size))
            counts.go_on(askers.at_s.item(begin))
            if strays is not None:
                part = self._soundly(crowd, askers.at_s, part)
            found = route_many(crowd, part)
            loads.append(found.load)
            begun.append(begin)
            columns[part] = found.first
            if self._is_choosy:
                self._admit(found, askers.only(part), (columns[part], codes[part], holds[part]))
            if strays is not None:
                told = columns[part], codes[part], holds[part]
                strayed |= self._stray(found, askers.only(part), told, strays)
            there = columns[part]
            desk.pulse.begin_many(grid.numbers[there[there != NOBODY]])
            begin = part.stop
        if strays is not None:
            counts.go_on(span_s[1])
            strays.do_until(span_s[1])
        counts.undo()  # they end when their servers say so
        going = (columns != NOBODY).nonzero()[0]
        if desk.pulse.revisits.offers:
            desk.pulse.take_offers(grid.numbers[columns[going]], span_s[0])
        turned = ((columns == NOBODY) & (codes != _STRAYED)).nonzero()[0]
        refused = turned[codes[turned] == _ROUTED]
        if refused.size:
            load = np.array(loads)[np.searchsorted(begun, refused, side="right") - 1]
            codes[refused] = desk.refusals(crowd, refused, load)
        sent = Sent(crowd, going, columns[going], holds[going], strayed)
        return sent, Turned(turned, codes[turned])

    def _soundly(self, crowd: Crowd, at_s: FloatArray, part: slice) -> slice:
        """Return as much of a part as can be decided on what is known of failures at its begin."""
        strays, pulse = self._strays, self._world.desk.pulse
        assert strays is not None
        now_s = at_s.item(part.start)
        was_wary = pulse.is_wary
        if strays.do_until(now_s) or was_wary:
            crowd.renew(now_s)
        stop = int(at_s.searchsorted(strays.next_s(now_s)))
        part = slice(part.start, min(max(stop, part.start + 1), part.stop))
        probes = strays.probes(now_s) if pulse.is_wary else None
        if probes:
            first = crowd.grid.numbers[np.maximum(route_many(crowd, part).first, 0)]
            # Whoever comes first is the probe; what comes of it the others do not wait for.
            there = np.isin(first, list(probes)).nonzero()[0]
            if there.size:
                return slice(part.start, part.start + int(there[0]) + 1)
        return part

    def _stray(
        self,
        found: Decisions,
        askers: Askers,
        told: tuple[IntArray, IntArray, IntArray],
        strays: Strays,
    ) -> dict[int, Stray]:
        """Begin the calls one by one that may be refused by their servers, or cut by an outage, and
        strike those that are; `told` as for `_admit`. Return those who go, by row of the crowd."""
        columns, codes, holds = told
        desk, crowd = self._world.desk, found.crowd
        numbers = crowd.grid.numbers[columns] if crowd.grid.numbers.size else columns
        deadline_s = askers.at_s + self._deadline_s[askers.place]
        odd = strays.suspect[numbers] | (strays.outage_s[numbers] <= deadline_s)
        if desk.pulse.is_wary:
            odd |= np.isin(numbers, list(strays.probes(float(askers.at_s[0]))))
        odd &= columns != NOBODY
        rows = odd.nonzero()[0]
        even = int((columns != NOBODY).sum()) - rows.size
        desk.retries.deposit_many(even, float(askers.at_s[0]))
        going: dict[int, Stray] = {}
        if not rows.size:
            return going
        plans = self._plans(found, rows)
        ahead: Counts[int] = Counts()
        for row, plan in zip(rows.tolist(), plans, strict=True):
            stray = _stray_of(askers, row, float(deadline_s[row]), int(holds[row]))
            stray.tokens_in_bound = int(crowd.asked.tokens_in_bound[found.part.start + row])
            number = plan[0].number
            if strays.send(stray, plan, ahead[number], float(askers.at_s[row])):
                ahead[number] += 1
                going[found.part.start + row] = stray
            else:
                columns[row], codes[row] = NOBODY, _STRAYED
        return going

    def _plans(self, found: Decisions, rows: IntArray) -> list[tuple[Candidate, ...]]:
        """The plans of these rows of a part, as `route` makes them."""
        crowd = found.crowd
        table = found.plan(self._world.scenario.routing.attempts_max)
        known = terms(crowd, table, found.part)
        kinds = crowd.asked.kind[found.part]
        return [
            tuple(
                Candidate(
                    int(known.numbers[row, place]),
                    Rate(*crowd.grid.rates[:, kinds[row], column].tolist()),
                    int(known.tokens_out_max[row, place]),
                    int(known.ceiling_nanos[row, place]),
                )
                for place, column in enumerate(table[row].tolist())
                if column != NOBODY
            )
            for row in rows.tolist()
        ]

    def _market(self) -> Grid:
        market = self._world.desk.market
        if self._grid is None or self._grid.market is not market:
            self._grid = build_grid(self._kinds, market)
            self._group = group_of(self._world.scenario, float(self._grid.capacity.sum()))
        return self._grid

    def _asked(self, askers: Askers) -> Asked:
        room, place = self._headroom[askers.place], askers.place
        limits = np.ceil(room * askers.tokens_out).astype(np.int64)
        return Asked(
            kind=place,
            tokens_in_bound=np.ceil(room * askers.tokens_in).astype(np.int64),
            tokens_in_expected=askers.tokens_in,
            tokens_in_context=np.ceil(self._longest[place] * askers.tokens_in).astype(np.int64),
            tokens_out_max=np.where(self._generates[place], limits, NO_LIMIT),
            max_cost_nanos=np.floor(room * askers.offer_nanos),
            chance=self._chance.random(askers.size),
        )

    def _admit(
        self, found: Decisions, askers: Askers, told: tuple[IntArray, IntArray, IntArray]
    ) -> None:
        """Strike those who stay away, and those whose budget is spent; `told` is (columns, codes,
        holds), to be changed."""
        columns, codes, holds = told
        wary = self._is_wary[askers.place] & (columns != NOBODY)
        if wary.any():
            away = wary & self._stays_away(found, askers)
            columns[away], codes[away] = NOBODY, Code.STAYED_AWAY
        bound = (self._has_budget[askers.place] & (columns != NOBODY)).nonzero()[0]
        if not bound.size:
            return
        plan = found.plan(self._world.scenario.routing.attempts_max)
        holds[bound] = terms(found.crowd, plan, found.part).ceiling_nanos.max(axis=1)[bound]
        books = self._world.books
        for row in bound.tolist():
            if not books.hold(int(askers.account[row]), int(holds[row]), float(askers.at_s[row])):
                columns[row], codes[row], holds[row] = NOBODY, Code.NO_FUNDS, 0

    def _stays_away(self, found: Decisions, askers: Askers) -> np.ndarray:
        """True where price and foreseen wait are more than the answer is worth."""
        now_s = float(askers.at_s[0])
        waits = np.array(
            [
                memory.foreseen_s(now_s) * each.delay_cost_usd_per_s * 1e9
                for memory, each in zip(self._heard, self._classes, strict=True)
            ]
        )
        cost = terms(found.crowd, found.first, found.part).ceiling_nanos
        dearness = cost / self._headroom[askers.place] + waits[askers.place]
        return np.asarray(dearness > askers.offer_nanos)


class _Counts:
    """Calls in flight as time goes by in a slice: those that are to leave are taken off."""

    def __init__(self, in_flight: IntArray, leaving: tuple[IntArray, FloatArray]) -> None:
        self._in_flight = in_flight
        self._leaving = leaving
        self._left = 0

    def go_on(self, to_s: float) -> None:
        """Take off who is gone by then."""
        until = int(self._leaving[1].searchsorted(to_s))
        if until > self._left:
            np.subtract.at(self._in_flight, self._leaving[0][self._left : until], 1)
            self._left = until

    def undo(self) -> None:
        """Put them on again."""
        np.add.at(self._in_flight, self._leaving[0][: self._left], 1)


def _stray_of(askers: Askers, row: int, deadline_s: float, hold_nanos: int) -> Stray:
    return Stray(
        place=int(askers.place[row]),
        arrival_s=float(askers.arrival_s[row]),
        deadline_s=deadline_s,
        tokens_in=int(askers.tokens_in[row]),
        tokens_out=int(askers.tokens_out[row]),
        tokens_in_bound=0,
        offer_nanos=float(askers.offer_nanos[row]),
        account=int(askers.account[row]),
        hold_nanos=hold_nanos,
    )


def _kind(of: ConsumerClass) -> Requirements:
    return Requirements(
        account_id=NO_ONE,
        task=of.task,
        model=of.model,
        tokens_in_bound=0,
        tokens_in_expected=0,
        tokens_out_max=None,
        domain=of.domain,
        quality_min=of.quality_min,
        weights=of.weights,
        tier=of.tier,
    )
