"""Demand as a fluid: how many calls come in a span of time, and what they are worth.

A class is cut into atoms of equal chance: bins of value, each at its own mean, times pairs of
lengths, each the mean of a bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from pricing.book import FloatArray
from simulations.demand import (
    Arrivals,
    ConsumerClass,
    DayNight,
    GammaBursts,
    Lengths,
    Mmpp,
    Poisson,
    Shape,
    Steps,
    Trace,
    Value,
)

VALUES = 40
LENGTHS = 3
_FINE = 64
"""Points in a bin whose mean is the bin's, where there is no closed form."""


@dataclass(frozen=True, slots=True, eq=False)
class Atoms:
    """Arrays of one length; each atom is the same share of its class."""

    value_usd: FloatArray
    tokens_in: FloatArray
    tokens_out: FloatArray

    @property
    def share(self) -> float:
        """Of the calls of the class."""
        return 1.0 / self.value_usd.size


def atoms_of(consumers: ConsumerClass) -> Atoms:
    """Cut a class."""
    values = value_bins(consumers.value)
    told_in, told_out = _told(consumers.arrivals)
    long_in = _parts(told_in) if told_in else _bins(consumers.tokens_in)
    long_out = _parts(told_out) if told_out else _bins(consumers.tokens_out)
    value, tokens_in, tokens_out = (
        each.ravel() for each in np.meshgrid(values, long_in, long_out, indexing="ij")
    )
    if consumers.value.by_length:
        value = value * (tokens_in + tokens_out) / consumers.tokens_mean
    return Atoms(value, tokens_in, tokens_out)


def value_bins(value: Value) -> FloatArray:
    """The means of bins of equal chance, in USD, ascending."""
    if value.shape is Shape.FIXED:
        return np.array([value.mean_usd])
    chances = (np.arange(VALUES * _FINE) + 0.5) / (VALUES * _FINE)
    fine = np.minimum(_quantiles(value, chances), value.most_usd)
    means: FloatArray = fine.reshape(VALUES, _FINE).mean(axis=1)
    return means


def _quantiles(value: Value, chance: FloatArray) -> FloatArray:
    """Which value a call does not exceed with this chance."""
    mean = value.mean_usd
    match value.shape:
        case Shape.UNIFORM:
            return 2.0 * mean * chance
        case Shape.EXPONENTIAL:
            return -mean * np.log1p(-chance)
        case Shape.LOGNORMAL:
            return _lognormal(mean, value.cv, chance)
        case Shape.ISOELASTIC:
            least = mean * (1.0 - chance) ** (-1.0 / value.elasticity)
            return np.asarray(least, dtype=np.float64)
        case _:
            return np.full(chance.shape, mean)


def _lognormal(mean: float, cv: float, chance: FloatArray) -> FloatArray:
    spread = math.sqrt(math.log1p(cv * cv))
    return np.asarray(mean * np.exp(spread * ndtri(chance) - spread * spread / 2.0))


def _told(arrivals: Arrivals) -> tuple[Sequence[int], Sequence[int]]:
    """Lengths in and out, where a trace tells them."""
    return (arrivals.tokens_in, arrivals.tokens_out) if isinstance(arrivals, Trace) else ((), ())


def _parts(lengths: Sequence[int]) -> FloatArray:
    """The means of parts of equal size, the shortest first; a length may be in two of them."""
    means: FloatArray = np.sort(np.repeat(lengths, LENGTHS)).reshape(LENGTHS, -1).mean(axis=1)
    return means


def _bins(lengths: Lengths) -> FloatArray:
    """The means of bins of equal chance of a lognormal length."""
    if lengths.cv <= 0.0:
        return np.array([lengths.mean])
    spread = math.sqrt(math.log1p(lengths.cv**2))
    edges = ndtri(np.linspace(0.0, 1.0, LENGTHS + 1))
    means: FloatArray = lengths.mean * LENGTHS * np.diff(ndtr(edges - spread))
    return np.maximum(means, 1.0)


def calls_between(arrivals: Arrivals, from_s: float, to_s: float) -> float:
    """How many calls are expected from one second of the run to another."""
    match arrivals:
        case Poisson(rate_per_s) | GammaBursts(rate_per_s):
            return rate_per_s * (to_s - from_s)
        case DayNight():
            return _by_day(arrivals, to_s) - _by_day(arrivals, from_s)
        case Steps():
            return _by_steps(arrivals, from_s, to_s)
        case Mmpp():
            weights = np.array(arrivals.mean_stay_s) / math.fsum(arrivals.mean_stay_s)
            return float(weights @ np.array(arrivals.rates_per_s)) * (to_s - from_s)
        case Trace():
            ends = np.array([from_s, to_s]) * arrivals.speed
            return float(np.diff(np.searchsorted(arrivals.arrival_s, ends))[0])


def _by_day(day: DayNight, until_s: float) -> float:
    turn = 2.0 * math.pi / day.period_s
    swung = day.swing / turn * math.sin(turn * (until_s - day.peak_s))
    return day.rate_per_s * (until_s + swung)


def _by_steps(steps: Steps, from_s: float, to_s: float) -> float:
    ends = (*steps.from_s[1:], math.inf)
    return math.fsum(
        rate * max(min(to_s, end) - max(from_s, begin), 0.0)
        for begin, end, rate in zip(steps.from_s, ends, steps.rates_per_s, strict=True)
    )
