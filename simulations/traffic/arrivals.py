"""When calls come: for each process of `simulations.demand` the stream of its moments.

A process whose rate changes with time is one of rate 1 on another clock, t = L^-1(u) with L the
integral of the rate (Cinlar, "Introduction to Stochastic Processes", 1975, section 4.7), so bursts
and swings of rate go together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle, pairwise

import numpy as np

from pricing.book import FloatArray
from simulations.demand import Arrivals, DayNight, GammaBursts, Mmpp, Poisson, Steps, Trace

BLOCK = 1_024
_KNOTS = 4_096
"""Points at which the integral of a day's rate is tabulated; between them it is a line."""


def moments(arrivals: Arrivals, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Moments in seconds, ascending, in blocks, for as long as calls come."""
    match arrivals:
        case Poisson(rate_per_s):
            return _even(rate_per_s, 1.0, rng)
        case GammaBursts(rate_per_s, cv):
            return _even(rate_per_s, cv, rng)
        case DayNight():
            return _by_day(arrivals, rng)
        case Steps():
            return _by_steps(arrivals, rng)
        case Mmpp():
            return _by_states(arrivals, rng)
        case Trace():
            return _as_it_was(arrivals)


def _gaps(cv: float, rng: np.random.Generator) -> FloatArray:
    """Gaps with mean 1."""
    if cv == 1.0:
        return rng.standard_exponential(BLOCK)
    if cv == 0.0:
        return np.ones(BLOCK)
    return rng.gamma(cv**-2, cv**2, BLOCK)


def _renewals(cv: float, rng: np.random.Generator) -> Iterator[FloatArray]:
    """The moments of a process of rate 1."""
    last = 0.0
    while True:
        block = last + np.cumsum(_gaps(cv, rng))
        last = float(block[-1])
        yield block


def _even(rate_per_s: float, cv: float, rng: np.random.Generator) -> Iterator[FloatArray]:
    if rate_per_s > 0.0:
        for block in _renewals(cv, rng):
            yield block / rate_per_s


def _by_day(day: DayNight, rng: np.random.Generator) -> Iterator[FloatArray]:
    if day.rate_per_s <= 0.0:
        return
    at_s = np.linspace(0.0, day.period_s, _KNOTS + 1)
    turn = 2.0 * math.pi / day.period_s
    swung = np.sin(turn * (at_s - day.peak_s)) + math.sin(turn * day.peak_s)
    calls = day.rate_per_s * (at_s + day.swing / turn * swung)
    for block in _renewals(day.cv, rng):
        days, rest = np.divmod(block, calls[-1])
        yield days * day.period_s + np.interp(rest, calls, at_s)


def _by_steps(steps: Steps, rng: np.random.Generator) -> Iterator[FloatArray]:
    spans = np.diff(steps.from_s)
    calls = np.concatenate(([0.0], np.cumsum(spans * steps.rates_per_s[:-1])))
    last_rate = steps.rates_per_s[-1]
    at_s = np.asarray(steps.from_s, dtype=np.float64)
    for block in _renewals(steps.cv, rng):
        beyond = block - calls[-1]
        within = np.interp(block, calls, at_s)  # of two knots with one count, the later
        if last_rate > 0.0:
            yield np.where(beyond > 0.0, steps.from_s[-1] + beyond / last_rate, within)
            continue
        yield within[beyond <= 0.0]
        if beyond[-1] > 0.0:
            return


def _by_states(states: Mmpp, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Each state's calls are a Poisson process of their own while it lasts."""
    if not any(states.rates_per_s):
        return
    begun_s = 0.0
    for rate, stay_s in cycle(zip(states.rates_per_s, states.mean_stay_s, strict=True)):
        stays_s = rng.exponential(stay_s)
        parts = math.ceil(rate * stays_s / BLOCK)
        for part in range(parts):
            count = rng.poisson(rate * stays_s / parts)
            if count:
                yield begun_s + stays_s / parts * (part + np.sort(rng.random(count)))
        begun_s += stays_s


def _as_it_was(trace: Trace) -> Iterator[FloatArray]:
    at_s = np.asarray(trace.arrival_s, dtype=np.float64) / trace.speed
    bounds = [*range(0, at_s.size, BLOCK), at_s.size]
    for start, end in pairwise(bounds):
        yield at_s[start:end]
