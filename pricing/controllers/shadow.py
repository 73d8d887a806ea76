"""Shadow prices: marginal cost, plus work times what one more slot is worth to the whole fleet.

    rate = floor + rate_work * dual of the endpoint's slots      (see `pricing.equilibrium`)

Where a snapshot tells who asks for what, the duals are those of the fluid market with `target` of
its capacity, solved anew every `solve_every_s` or later from the last solution on. Where it does
not, each endpoint is a market of its own with isoelastic demand, whose dual has a closed form: the
price at which the work wanted fills the target,

    ln p <- ln p + ln(load / target) / elasticity.

Either way the price goes a share of the way in each tick, in logarithms: the whole way at once is
a loop of gain 1, which delay makes oscillate, so the gain guard bounds the share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pricing.book import FloatArray, PriceBook, ProposedRates
from pricing.equilibrium import EquilibriumUnsolved, WelfareOptimum, welfare_optimum
from pricing.fluid import FluidMarket
from pricing.guardrails import gain_share
from pricing.scarcity import fitted, rates_at, scarcity_of
from pricing.snapshot import Bands, MarketSnapshot

_LOAD_MIN = 0.02
"""A load below this counts as this, for its logarithm is taken."""
_FURTHER = 2.0
"""How much further than the distance a price may aim in a rush."""
_RUSH_MAX = 50.0
"""ln load over target beyond this counts as this, for it is made a number again."""
_OLD = 0.1
"""The share of the time in which a price is answered after which a goal is old."""


@dataclass(frozen=True, slots=True, eq=False)
class ShadowState:
    """Scarcities by endpoint: where the price is, where it goes; NaN for none, and for no goal."""

    scarcity: FloatArray
    goal: FloatArray
    since_s: float
    """Since the goal was solved for; infinite when it never was."""
    optimum: WelfareOptimum | None = None


@dataclass(frozen=True, slots=True)
class ShadowPrice:
    """The controller."""

    target: float = 0.8
    """The share of capacity that is sold: all of it would be a queue without end."""
    speed: float = 0.25
    """The share of the way that a price goes in one tick."""
    solve_every_s: float = 5.0
    elasticity: float = 1.0
    """Of demand, where it is not measured."""
    load_cap: float = 8.0
    """Load beyond this counts as this."""

    def __post_init__(self) -> None:
        if not 0.0 < self.target < self.load_cap:
            raise ValueError("the target lies between zero and the load cap")
        if not 0.0 < self.speed <= 1.0:
            raise ValueError("the speed is a share above zero")
        if not (math.isfinite(self.solve_every_s) and self.solve_every_s >= 0.0):
            raise ValueError("it is solved after a finite time, not below zero")
        if not (math.isfinite(self.elasticity) and self.elasticity > 0.0):
            raise ValueError("the elasticity is finite and above zero")

    def resume(self, book: PriceBook, bands: Bands) -> ShadowState:
        """The state whose price is the book's."""
        return ShadowState(scarcity_of(book, bands), np.full(len(bands), np.nan), math.inf)

    def step(
        self, state: ShadowState, snapshot: MarketSnapshot
    ) -> tuple[ShadowState, ProposedRates]:
        """One tick for all endpoints. One that is new to the state begins at its list price."""
        bands = snapshot.bands
        before = fitted(state.scarcity, len(bands))
        state = self._aimed(state, snapshot)
        goal = fitted(state.goal, len(bands))
        alone = before + self._answer(snapshot)
        goal = np.where(np.isnan(goal), alone, goal)
        low, high = bands.reach
        moved = before + self._share(snapshot) * self._way(
            np.clip(goal, low, high) - before, snapshot
        )
        scarcity = np.clip(np.where(np.isnan(before), 0.0, moved), low, high)
        rates = rates_at(bands, scarcity)
        scarcity = np.where(bands.present, scarcity, np.nan)
        return replace(state, scarcity=scarcity), ProposedRates(rates)

    def _share(self, snapshot: MarketSnapshot) -> FloatArray | float:
        """The share of the way that is gone in a tick; a goal that stands for a while is late by
        half of that."""
        delay, dt_s = snapshot.delay_ticks, snapshot.dt_s
        if delay is not None and snapshot.fluid is not None and dt_s > 0.0:
            stands = self._solve_every_s(snapshot) / dt_s
            snapshot = replace(snapshot, delay_ticks=delay + max(stands - 1.0, 0.0) / 2.0)
        return np.minimum(self.speed, gain_share(1.0 / self._elasticity(snapshot), snapshot))

    def _way(self, distance: FloatArray, snapshot: MarketSnapshot) -> FloatArray:
        """How far to aim for a distance in ln p: in proportion to how far load is off its target.

        Were it the distance itself, ln load would be held at ln target, and the mean of a load that
        swings by chance would stand above its target.
        """
        elasticity = self._elasticity(snapshot)
        way = np.expm1(np.minimum(elasticity * distance, _RUSH_MAX)) / elasticity
        further: FloatArray = np.minimum(way, np.maximum(_FURTHER * distance, 0.0))
        return further

    def _answer(self, snapshot: MarketSnapshot) -> FloatArray:
        """How far ln p is from clearing each endpoint alone; a load of no sense moves nothing."""
        load = np.where(np.isfinite(snapshot.load), snapshot.load, self.target)
        load = np.clip(load, _LOAD_MIN, self.load_cap)
        answer: FloatArray = np.log(load / self.target) / self._elasticity(snapshot)
        return answer

    def _elasticity(self, snapshot: MarketSnapshot) -> FloatArray | float:
        if snapshot.elasticity is None:
            return self.elasticity
        measured = np.nan_to_num(snapshot.elasticity, nan=self.elasticity)
        return np.clip(measured, 0.2, 20.0)

    def _solve_every_s(self, snapshot: MarketSnapshot) -> float:
        """How long a goal stands: where prices are answered late, a goal is old later."""
        if snapshot.delay_ticks is None or not snapshot.delay_ticks.size:
            return self.solve_every_s
        soonest = float(np.nan_to_num(snapshot.delay_ticks).min())
        return max(self.solve_every_s, _OLD * soonest * snapshot.dt_s)

    def _aimed(self, state: ShadowState, snapshot: MarketSnapshot) -> ShadowState:
        """The state with a new goal, when it is time for one."""
        fluid = snapshot.fluid
        if fluid is None:
            return replace(state, goal=np.full(len(snapshot.bands), np.nan), since_s=math.inf)
        since_s = state.since_s + snapshot.dt_s
        if since_s < self._solve_every_s(snapshot) and state.goal.size == len(snapshot.bands):
            return replace(state, since_s=since_s)
        sold = replace(fluid, capacity=self.target * fluid.capacity)
        try:
            optimum = welfare_optimum(sold, state.optimum)
        except EquilibriumUnsolved:
            # The old goal stands until the solver finds a new one.
            return replace(state, since_s=0.0)
        goal = _scarcity_at(optimum, fluid, snapshot.bands)
        return replace(state, goal=goal, since_s=0.0, optimum=optimum)


def _scarcity_at(optimum: WelfareOptimum, fluid: FluidMarket, bands: Bands) -> FloatArray:
    """The scarcity whose price is marginal cost and work times dual, by endpoint."""
    listed = np.maximum(bands.listed.sum(axis=0, dtype=np.float64), 1.0)
    work = bands.listed / listed if fluid.rate_work is None else fluid.rate_work
    dual = optimum.congestion[fluid.resource]
    price = (bands.floor + work * dual).sum(axis=0)
    scarcity: FloatArray = np.log(np.maximum(price, 1e-300) / listed)
    return scarcity
