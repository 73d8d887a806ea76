"""Price advice: the band that would have earned a provider most, how sure that is, and why.

    ln calls_t = a - elasticity * ln price_t + time of day + u_t,     u_t = r * u_(t-1) + noise

A price that follows the load was made by the calls that came before, so dear hours are busy hours,
and calls set against prices as they stand would say that demand likes it dear. Differences
calls_t - r * calls_(t-1) leave nothing in the noise that the price at the beginning of the period
could have known (Cochrane & Orcutt 1949; r is the one of a grid with the most evidence, Hildreth &
Lu 1960). The rest is a Bayesian linear regression with normal and inverse gamma priors (Gelman et
al., "Bayesian Data Analysis", 3rd ed. 2013, section 14.8), the elasticity 1 +- 1 before any data.
Then each period is played again at other prices, no more than its capacity is ever sold, and
whatever is said is said for the quantiles of the elasticity from 5% to 95%.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricing.book import FloatArray

Bools = NDArray[np.bool_]

PERIODS_MIN = 24
"""Of fewer periods with calls nothing is said."""
BEYOND = 1.5
"""Prices up to this factor outside those that were tried are considered."""
STILL = 0.02
"""A standard deviation of ln price below this has shown nothing."""
WORTH = 0.02
"""A gain below this share is none."""
FULL = 0.9
"""A period in which this share of the capacity was sold was sold out."""
_PRICES = 121
_QUANTILES = np.linspace(0.05, 0.95, 19)
_PERSISTENCES = np.linspace(0.0, 0.95, 20)
_DAY_S = 86_400.0


class Reason(enum.StrEnum):
    """Why a price is advised, or none."""

    TOO_FEW_CALLS = "too_few_calls"
    PRICE_NEVER_MOVED = "price_never_moved"
    SOLD_OUT = "sold_out"
    INELASTIC = "inelastic"
    ELASTIC = "elastic"
    UNSURE = "unsure"
    WELL_PRICED = "well_priced"


SENTENCES = {
    Reason.TOO_FEW_CALLS: "There were too few calls to learn from.",
    Reason.PRICE_NEVER_MOVED: "The price hardly moved, so what another would have earned is not "
    "known; a wider band would show it.",
    Reason.SOLD_OUT: "All that could be served was sold for much of the time: a dearer price then "
    "would have lost no call.",
    Reason.INELASTIC: "Calls fall by less than the price rises: a dearer price would have earned "
    "more.",
    Reason.ELASTIC: "Calls rise by more than the price falls: a cheaper price would have earned "
    "more.",
    Reason.UNSURE: "Whether dearer or cheaper is better is not certain yet; the band leaves room "
    "to find out.",
    Reason.WELL_PRICED: "The prices as they were earned about as much as any would have.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Sales:
    """What one endpoint sold, in periods of equal length that follow each other.

    `price_nanos` is what its usual call cost at the beginning of each period, `calls` how many were
    served in it, `calls_max` how many could have been.
    """

    begins_s: float
    period_s: float
    price_nanos: FloatArray
    calls: FloatArray
    calls_max: float
    cost_nanos: float = 0.0
    """What a call costs the provider itself."""


@dataclass(frozen=True, slots=True)
class Range:
    """A best guess, and what is below and above it with 5% each."""

    low: float
    best: float
    high: float


@dataclass(frozen=True, slots=True)
class Advice:
    """Prices of a usual call in nano-dollars; None where nothing can be advised. `gain` is what the
    band would have earned more, as a share of what was earned."""

    reason: Reason
    periods: int
    elasticity: Range | None = None
    floor_nanos: float | None = None
    listed_nanos: Range | None = None
    ceiling_nanos: float | None = None
    gain: Range | None = None

    @property
    def sentence(self) -> str:
        """The reason for people."""
        return SENTENCES[self.reason]


def advise(sales: Sales) -> Advice:
    """What would have been the best band. Raises ValueError where the arrays do not fit."""
    if sales.price_nanos.shape != sales.calls.shape or sales.price_nanos.ndim != 1:
        raise ValueError("there is a price and a number of calls for each period")
    known = np.isfinite(sales.price_nanos) & (sales.price_nanos > 0.0)
    busy = int(np.count_nonzero(known & (sales.calls > 0.0)))
    if busy < PERIODS_MIN:
        return Advice(Reason.TOO_FEW_CALLS, busy)
    log_price = np.log(sales.price_nanos[known])
    if float(np.std(log_price)) < STILL:
        return Advice(Reason.PRICE_NEVER_MOVED, busy)
    elasticity = _elasticities(sales, known)
    earned, prices = _replayed(sales, known, elasticity)
    return _told(sales, busy, elasticity, earned, prices)


def _elasticities(sales: Sales, known: Bools) -> FloatArray:
    """Quantiles of the posterior elasticity, ascending, none below zero."""
    from scipy.special import stdtrit  # takes long to import, and few ever ask for advice

    log_calls = np.log(sales.calls + 0.5)
    log_price = np.log(np.where(known, sales.price_nanos, 1.0))
    log_price -= log_price[known].mean()
    turn = (
        2.0
        * math.pi
        * (sales.begins_s / _DAY_S + np.arange(known.size) * (sales.period_s / _DAY_S))
    )
    x = np.column_stack((np.ones(known.size), log_price, np.sin(turn), np.cos(turn)))
    # What was sold out does not show what was wanted.
    shown = known & (sales.calls < FULL * sales.calls_max)
    pairs = shown[1:] & shown[:-1]
    found = [
        _posterior((x[1:] - r * x[:-1])[pairs], (log_calls[1:] - r * log_calls[:-1])[pairs])
        for r in _PERSISTENCES
    ]
    _, mean, spread, freedom = max(found)
    quantiles: FloatArray = -mean + spread * stdtrit(freedom, _QUANTILES)
    return np.maximum(quantiles, 0.0)


def _posterior(x: FloatArray, y: FloatArray) -> tuple[float, float, float, float]:
    """(log evidence, mean, scale, degrees of freedom) of the price's coefficient, a Student t."""
    before, precision = np.array([0.0, -1.0, 0.0, 0.0]), np.diag([1e-4, 0.02, 1e-2, 1e-2])
    shape, scale = 2.0, 0.04  # a noise of 14%, and with it an elasticity within 1
    joint = x.T @ x + precision
    mean = np.linalg.solve(joint, precision @ before + x.T @ y)
    fitted = y @ y + before @ precision @ before - mean @ joint @ mean
    shape_after = shape + 0.5 * y.size
    scale_after = scale + 0.5 * max(float(fitted), 0.0)
    evidence = -0.5 * np.linalg.slogdet(joint)[1] - shape_after * math.log(scale_after)
    spread = math.sqrt(scale_after / shape_after * float(np.linalg.inv(joint)[1, 1]))
    return float(evidence), float(mean[1]), spread, 2.0 * shape_after


def _replayed(sales: Sales, known: Bools, elasticity: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Earnings of shape (elasticities, prices, periods) at each of the prices."""
    was = sales.price_nanos[known]
    prices = np.geomspace(was.min() / BEYOND, was.max() * BEYOND, _PRICES)
    ratio = np.log(prices[:, np.newaxis] / was)
    calls = sales.calls[known] * np.exp(-elasticity[:, np.newaxis, np.newaxis] * ratio)
    sold = np.minimum(calls, max(sales.calls_max, 1.0))
    return (prices[:, np.newaxis] - sales.cost_nanos) * sold, prices


def _told(
    sales: Sales, busy: int, elasticity: FloatArray, earned: FloatArray, prices: FloatArray
) -> Advice:
    known = np.isfinite(sales.price_nanos) & (sales.price_nanos > 0.0)
    was = float(((sales.price_nanos - sales.cost_nanos) * sales.calls)[known].sum())
    middle = elasticity.size // 2
    at_once = earned.sum(axis=2)
    best = prices[at_once.argmax(axis=1)]
    each = earned[middle].argmax(axis=0)
    listed = int(at_once.mean(axis=0).argmax())
    lowest, highest = np.quantile(each, (0.1, 0.9), method="nearest")
    band = (min(lowest, listed), max(highest, listed))
    # A price that follows demand is, within the band, what is best for each period.
    would = earned[:, np.clip(each, *band), np.arange(each.size)].sum(axis=1)
    gain = would / was - 1.0 if was > 0.0 else np.zeros(would.size)
    ranges = (_range(elasticity), _range(gain))
    full = float(np.mean(sales.calls[known] >= FULL * sales.calls_max))
    return Advice(
        _reason(*ranges, full),
        busy,
        ranges[0],
        float(prices[band[0]]),
        Range(float(best.min()), float(prices[listed]), float(best.max())),
        float(prices[band[1]]),
        ranges[1],
    )


def _reason(elasticity: Range, gain: Range, full: float) -> Reason:
    if full > 0.1:
        return Reason.SOLD_OUT
    if gain.best < WORTH:
        return Reason.WELL_PRICED
    if elasticity.high < 1.0:
        return Reason.INELASTIC
    return Reason.ELASTIC if elasticity.low > 1.0 else Reason.UNSURE


def _range(quantiles: FloatArray) -> Range:
    middle = float(quantiles[quantiles.size // 2])
    return Range(float(quantiles.min()), middle, float(quantiles.max()))
