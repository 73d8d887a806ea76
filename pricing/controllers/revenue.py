"""Revenue search: learn how demand answers to price, and go where the next percent earns nothing.

    ln p = centre +- explore     each sign for half a round, which first is a coin
    pull = 1 - elasticity, and none upward where nobody asks
    sure = max(1 - (error / pull)^2, 0)
    fill = ln(load / full) / elasticity
    centre <- centre + clip(max(speed * sure * pull, fill), +-max_move)    after each round

With q the quantity sold, d(ln revenue) / d(ln p) = 1 - elasticity(p): revenue is best where the
elasticity is one. The elasticity is estimated by recursive least squares on the log load and log
price of the halves (`pricing.demand`), shrunk toward one, and a pull within its standard error is
none: without evidence nothing moves. A price that only follows its estimate stops learning before
it is right (Lai & Robbins 1982), so it keeps exploring, by less as rounds go by:
`explore * rounds^(-1/4)`, the rate of den Boer & Zwart, "Simultaneously learning and optimizing
using controlled variance pricing", Management Science 60, 2014. Where more is asked than can be
served, what is sold is the capacity and a dearer price loses nothing, so the centre is never below
the price that just fills it. Whom nobody asks keeps its price, unless what was learned says that it
is too dear: calls do not come at night either, nor often to a small model, and what a fall would
take from those two until it is made good, it could give only to one listed above all demand.

The coin is a hash of `seed`, round and place (splitmix64: Steele, Lea & Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014), so a replay tosses the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pricing.book import FloatArray, PriceBook, ProposedRates
from pricing.demand import LOAD_MAX, LOAD_MIN, DemandState, ElasticityEstimator
from pricing.scarcity import fitted, price_of, rates_at, scarcity_of
from pricing.snapshot import Bands, MarketSnapshot

_ELASTICITY_MIN = 0.5
"""Below this it is taken for this, where a price is to be found that fills the capacity."""


@dataclass(frozen=True, slots=True, eq=False)
class RevenueState:
    """Arrays by endpoint; NaN in `centre` where no endpoint was in the market."""

    centre: FloatArray
    offset: FloatArray
    """What the price tried now differs from the centre by, in logarithms."""
    rounds: FloatArray
    asked_s: FloatArray
    """Load times seconds of this round."""
    demand: DemandState
    half: int
    """Halves gone by since the start; even in the first half of a round."""
    half_s: float
    round_s: float


@dataclass(frozen=True, slots=True)
class RevenueSearch:
    """The controller. By default a round takes two minutes."""

    half_s: float = 60.0
    settle_share: float = 0.25
    """The share of a half in which demand still finds out, and which is not counted."""
    explore: float = 0.1
    """ln price on either side of the centre, in the first round."""
    explore_min: float = 0.04
    speed: float = 0.1
    max_move: float = 0.1
    """ln price from round to round, at most."""
    full: float = 0.95
    """The mean load at which all is sold."""
    forgetting: float = 0.98
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.half_s) and self.half_s > 0.0):
            raise ValueError("half a round takes a finite time above zero")
        if not 0.0 <= self.settle_share < 1.0:
            raise ValueError("the settling share is from 0 to below 1")
        if not 0.0 < self.explore_min <= self.explore <= 0.5:
            raise ValueError("exploration is above zero and at most 0.5, the least first")
        if not (0.0 < self.speed <= 1.0 and 0.0 < self.max_move <= 0.5 and self.full > 0.0):
            raise ValueError("speed, largest move and full load are above zero, and moves small")
        if not 0.5 <= self.forgetting <= 1.0:
            raise ValueError("forgetting is from 0.5 to 1")

    @property
    def _estimator(self) -> ElasticityEstimator:
        return ElasticityEstimator(forgetting=self.forgetting, prior=1.0)

    def resume(self, book: PriceBook, bands: Bands) -> RevenueState:
        """The state that searches on around the book's prices, knowing nothing of demand."""
        size, none = len(bands), np.zeros(len(bands))
        demand = self._estimator.start(size)
        return RevenueState(scarcity_of(book, bands), none, none, none, demand, 0, 0.0, 0.0)

    def step(
        self, state: RevenueState, snapshot: MarketSnapshot
    ) -> tuple[RevenueState, ProposedRates]:
        """One tick for all endpoints. One that is new to the state begins at its list price, and
        explores from the next half on."""
        bands, size = snapshot.bands, len(snapshot.bands)
        low, high = bands.reach
        centre = fitted(state.centre, size)
        centre = np.where(np.isnan(centre), 0.0, np.clip(centre, low, high))
        state = replace(
            state,
            centre=centre,
            offset=_known(state.offset, size),
            rounds=_known(state.rounds, size),
            asked_s=_known(state.asked_s, size),
        )
        state = self._watched(state, snapshot)
        if state.half_s >= self.half_s:
            state = self._turned(state, low, high)
        asked = np.clip(state.centre + state.offset, low, high)
        rates = rates_at(bands, asked)
        return replace(state, centre=np.where(bands.present, state.centre, np.nan)), (
            ProposedRates(rates)
        )

    def _watched(self, state: RevenueState, snapshot: MarketSnapshot) -> RevenueState:
        """The state with this tick's load seen at the price in force."""
        half_s = state.half_s + snapshot.dt_s
        load = np.where(np.isfinite(snapshot.load), np.clip(snapshot.load, 0.0, LOAD_MAX), 0.0)
        asked_s, round_s = state.asked_s + load * snapshot.dt_s, state.round_s + snapshot.dt_s
        demand = state.demand
        if half_s > self.settle_share * self.half_s:
            price = np.exp(state.centre + state.offset)
            if snapshot.book is not None:
                price = price_of(snapshot.book, snapshot.bands)
            demand = self._estimator.watch(demand, price, snapshot.load, snapshot.dt_s)
        return replace(state, half_s=half_s, asked_s=asked_s, round_s=round_s, demand=demand)

    def _turned(self, state: RevenueState, low: FloatArray, high: FloatArray) -> RevenueState:
        """The state at the beginning of the next half, and if need be of the next round."""
        demand, half = self._estimator.close(state.demand), state.half + 1
        state = replace(state, demand=demand, half=half, half_s=0.0)
        if half % 2:  # now the other side, or, for newcomers, the first
            first = _coin(self.seed, half, state.offset.size) * self._reach(state.rounds)
            return replace(state, offset=np.where(state.offset == 0.0, first, -state.offset))
        rounds = state.rounds + 1.0
        reach = self._reach(rounds)
        known = self._estimator.estimate(demand)
        pull = 1.0 - known.mean
        sure = np.maximum(1.0 - (known.error / np.maximum(np.abs(pull), 1e-9)) ** 2, 0.0)
        asked = state.asked_s / state.round_s
        # Where nobody asks there is nothing to earn by being dearer, whatever was learned before.
        pull = np.where(asked > LOAD_MIN, pull, np.minimum(pull, 0.0))
        fill = np.log(np.maximum(asked, LOAD_MIN) / self.full)
        fill /= np.maximum(known.mean, _ELASTICITY_MIN)
        move = np.maximum(self.speed * sure * pull, fill)
        centre = state.centre + np.clip(move, -self.max_move, self.max_move)
        # Both sides are to stay within the band, as far as the band is wide enough.
        room = np.minimum(reach, (high - low) / 2.0)
        centre = np.clip(centre, low + room, high - room)
        offset = _coin(self.seed, half, reach.size) * reach
        none = np.zeros(reach.size)
        return replace(
            state, centre=centre, offset=offset, rounds=rounds, asked_s=none, round_s=0.0
        )

    def _reach(self, rounds: FloatArray) -> FloatArray:
        shrunk = self.explore * np.maximum(rounds, 1.0) ** -0.25
        reach: FloatArray = np.maximum(shrunk, self.explore_min)
        return reach


def _known(array: FloatArray, size: int) -> FloatArray:
    return np.nan_to_num(fitted(array, size))


def _coin(seed: int, turn: int, size: int) -> FloatArray:
    """1 or -1 for each place."""
    start = np.uint64(((seed << 32) ^ turn) * _GAMMA & _WORD)
    word = start + np.arange(size, dtype=np.uint64) * np.uint64(_GAMMA)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bit: NDArray[np.uint64] = (word ^ (word >> np.uint64(31))) >> np.uint64(63)
    return np.where(bit == 0, 1.0, -1.0)


_WORD = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
"""Nearest odd number to 2^64 over the golden ratio."""
