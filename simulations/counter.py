"""The broker's side of a slice of time: decides about calls in groups, holds, and turns away.

A group takes no more than a small share of the capacity on offer, for its calls do not see each
other: they are decided on the counts of one moment.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from broker.core.crowd import NO_LIMIT, Asked, Crowd
from broker.core.grid import Grid, build_grid
from broker.core.requirements import Requirements
from broker.core.routing_many import NOBODY, Decisions, route_many, terms
from pricing.book import FloatArray, IntArray
from simulations.askers import Askers
from simulations.chance import generator
from simulations.demand import ConsumerClass, Foresight
from simulations.foresight import Memory
from simulations.pace import group_of
from simulations.record import Code
from simulations.visit import NO_ONE
from simulations.world import World

_ROUTED = -1
"""Instead of a code, where only the decision says why a call goes nowhere."""


class Sent(NamedTuple):
    """Calls that go somewhere; `rows` are those of the crowd, the others aligned with them."""

    crowd: Crowd
    rows: IntArray
    columns: IntArray
    """Of the grid."""
    hold_nanos: IntArray
    """0 for accounts without a budget, which always have enough."""


class Turned(NamedTuple):
    """Calls that go nowhere."""

    rows: IntArray
    codes: IntArray


class Counter:
    """Decides. `heard` is what callers of each class believe a call takes."""

    def __init__(self, world: World, heard: list[Memory]) -> None:
        classes = world.scenario.classes
        self._world = world
        self._heard = heard
        self._classes = classes
        self._kinds = [_kind(each) for each in classes]
        self._headroom = np.array([each.headroom for each in classes])
        self._generates = np.array([each.task.generates for each in classes])
        self._is_wary = np.array([each.foresight is not Foresight.PRICE for each in classes])
        self._has_budget = np.array([math.isfinite(each.budget_usd) for each in classes])
        self._is_choosy = bool(self._is_wary.any() or self._has_budget.any())
        self._chance = generator(world.seed, "routing")
        self._grid: Grid | None = None
        self._group = 1

    def decide(
        self, askers: Askers, leaving: tuple[IntArray, FloatArray], now_s: float
    ) -> tuple[Sent, Turned]:
        """Decide about calls that ask from now on. `leaving` is (endpoint, when) of the calls that
        are to end meanwhile, by time."""
        desk, grid = self._world.desk, self._market()
        crowd = Crowd(self._asked(askers), grid, desk.pulse, desk.routing, now_s)
        in_flight, left = desk.pulse.in_flight, 0
        columns = np.full(askers.size, NOBODY)
        codes, holds = np.full(askers.size, _ROUTED), np.zeros(askers.size, dtype=np.int64)
        loads = []
        gone_by = leaving[1].searchsorted(askers.at_s[:: self._group]).tolist()
        for begin, until in zip(range(0, askers.size, self._group), gone_by, strict=True):
            part = slice(begin, min(begin + self._group, askers.size))
            if until > left:
                np.subtract.at(in_flight, leaving[0][left:until], 1)
                left = until
            found = route_many(crowd, part)
            loads.append(found.load)
            columns[part] = found.first
            if self._is_choosy:
                self._admit(found, askers.only(part), (columns[part], codes[part], holds[part]))
            there = columns[part]
            desk.pulse.begin_many(grid.numbers[there[there != NOBODY]])
        np.add.at(in_flight, leaving[0][:left], 1)  # they end when their servers say so
        going, turned = (columns != NOBODY).nonzero()[0], (columns == NOBODY).nonzero()[0]
        refused = turned[codes[turned] == _ROUTED]
        if refused.size:
            load = np.array(loads)[refused // self._group]
            codes[refused] = desk.refusals(crowd, refused, load)
        return Sent(crowd, going, columns[going], holds[going]), Turned(turned, codes[turned])

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
