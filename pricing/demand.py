"""How demand answers to price: elasticities learned on line, for all endpoints at once.

    d(ln load) = -elasticity * d(ln price) + noise,     each between two windows that follow

Recursive least squares with exponential forgetting (Ljung, "System Identification", 2nd ed. 1999,
section 11.2) on first differences, which cancel a level of demand that drifts; with one coefficient
it needs two sums. A normal prior, worth some price movement already seen, keeps the estimate sane
until there is data. Prices that follow load are not moved at random, so what is learned from them
is biased toward zero: a guard adds the standard error and never goes below the prior, and a search
moves the price by a coin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from pricing.book import FloatArray
from pricing.scarcity import fitted

LOAD_MIN, LOAD_MAX = 0.05, 1e6
"""A load below or above counts as this: of a few calls the logarithm is nothing but chance."""
_LOG_LOAD_MIN = math.log(LOAD_MIN) + 1e-9  # arrays' logarithms may be rounded otherwise
_PRICE_MIN, _PRICE_MAX = 1e-30, 1e30
"""A price beyond these is none."""
_NOISE_PRIOR = 0.05
"""Variance of d(ln load) between windows before any was seen."""


@dataclass(frozen=True, slots=True, eq=False)
class DemandState:
    """Arrays by endpoint; NaN in `before_*` where there was no window yet."""

    elapsed_s: float
    load_s: FloatArray
    price_s: FloatArray
    before_log_load: FloatArray
    before_log_price: FloatArray
    sum_xx: FloatArray
    sum_xy: FloatArray
    sum_yy: FloatArray
    weight: FloatArray
    """How many windows the sums hold, the old ones counting less."""


@dataclass(frozen=True, slots=True, eq=False)
class Elasticity:
    """Mean and standard error by endpoint; above zero where a dearer price means less demand."""

    mean: FloatArray
    error: FloatArray


@dataclass(frozen=True, slots=True)
class ElasticityEstimator:
    """The estimator; its state is a value."""

    forgetting: float = 0.97
    """What a window still weighs one window later."""
    prior: float = 1.0
    prior_weight: float = 0.02
    """Sum of squared moves of ln price that the prior is worth under the usual noise: 0.02 are two
    moves of 10%."""

    def __post_init__(self) -> None:
        if not 0.0 < self.forgetting <= 1.0:
            raise ValueError("forgetting is a share above zero")
        if not self.prior_weight > 0.0:
            raise ValueError("the prior weighs more than nothing")

    def start(self, size: int) -> DemandState:
        """Nothing seen."""
        none, unknown = np.zeros(size), np.full(size, np.nan)
        return DemandState(0.0, none, none, unknown, unknown, none, none, none, none)

    def watch(
        self, state: DemandState, price: FloatArray, load: FloatArray, dt_s: float
    ) -> DemandState:
        """Add a tick to the window that is open; the price in any unit, but always the same. What
        is not finite spoils that window only."""
        state = self._fitted(state, load.size)
        load_s = np.clip(load, 0.0, LOAD_MAX)
        load_s[np.isinf(load)] = np.nan
        load_s *= dt_s
        load_s += state.load_s
        price_s = np.clip(price, 0.0, _PRICE_MAX)
        price_s *= dt_s
        price_s += state.price_s
        return replace(state, elapsed_s=state.elapsed_s + dt_s, load_s=load_s, price_s=price_s)

    def close(self, state: DemandState) -> DemandState:
        """End the window, learn from the step between it and the one before, open the next."""
        if state.elapsed_s <= 0.0:
            return state
        log_load = np.log(np.maximum(state.load_s / state.elapsed_s, LOAD_MIN))
        price = state.price_s / state.elapsed_s
        log_price = np.log(np.where(price > _PRICE_MIN, price, np.nan))
        x, y = log_price - state.before_log_price, log_load - state.before_log_load
        # Of two windows without load nobody knows what demand was, nor how it answered.
        told = np.isfinite(x) & (np.maximum(log_load, state.before_log_load) > _LOG_LOAD_MIN)
        x, y = np.where(told, x, 0.0), np.where(told, y, 0.0)
        keep = np.where(told, self.forgetting, 1.0)
        none = np.zeros(x.size)
        return DemandState(
            elapsed_s=0.0,
            load_s=none,
            price_s=none,
            before_log_load=log_load,
            before_log_price=log_price,
            sum_xx=keep * state.sum_xx + x * x,
            sum_xy=keep * state.sum_xy + x * y,
            sum_yy=keep * state.sum_yy + y * y,
            weight=keep * state.weight + told,
        )

    def estimate(self, state: DemandState) -> Elasticity:
        """What is known now: the posterior mean, and its error by the residuals seen."""
        usual = np.full(state.sum_xx.size, self.prior_weight)
        mean, _ = self._posterior(state, usual)
        residual = state.sum_yy + 2.0 * mean * state.sum_xy + mean * mean * state.sum_xx
        noise = (np.maximum(residual, 0.0) + _NOISE_PRIOR) / (state.weight + 1.0)
        # The noisier the load, the less is learned from it, and the prior knows no less for that.
        mean, weight = self._posterior(state, usual * noise / _NOISE_PRIOR)
        return Elasticity(mean, np.sqrt(noise / weight))

    def _posterior(self, state: DemandState, prior: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The mean where the prior is worth so much, and what all is worth together."""
        weight = state.sum_xx + prior
        mean: FloatArray = (prior * self.prior - state.sum_xy) / weight
        return mean, weight

    def _fitted(self, state: DemandState, size: int) -> DemandState:
        if state.load_s.size == size:
            return state
        return DemandState(
            elapsed_s=state.elapsed_s,
            load_s=fitted(state.load_s, size),
            price_s=fitted(state.price_s, size),
            before_log_load=fitted(state.before_log_load, size),
            before_log_price=fitted(state.before_log_price, size),
            sum_xx=np.nan_to_num(fitted(state.sum_xx, size)),
            sum_xy=np.nan_to_num(fitted(state.sum_xy, size)),
            sum_yy=np.nan_to_num(fitted(state.sum_yy, size)),
            weight=np.nan_to_num(fitted(state.weight, size)),
        )
