"""Means over seeds with their intervals, and what one policy makes more than another, in pairs.

    mean +- t(n - 1, 97.5%) * s / sqrt(n)

The runs of one seed see the same arrivals under every policy (common random numbers), so the
difference within a seed is far surer than that of two means (Law, "Simulation Modeling and
Analysis", 5th ed. 2015, sections 9.4 and 11.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over `count` seeds and the bounds of its confidence interval.

    NaN bounds say that one seed tells nothing about the spread; a NaN mean that there is nothing.
    """

    mean: float
    low: float
    high: float
    count: int

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2.0


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much the first is above the second, over the seeds that both have.

    `chance` is how often so much would be seen if there were none (Student's t, two-sided).
    """

    gap: Interval
    chance: float

    @property
    def is_sure(self) -> bool:
        """True when zero lies outside of the interval."""
        return self.gap.low > 0.0 or self.gap.high < 0.0


def interval(values: Sequence[float]) -> Interval:
    """The mean of what is finite, and its interval at LEVEL."""
    known = np.array([each for each in values if math.isfinite(each)])
    if not known.size:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean = float(known.mean())
    if known.size == 1:
        return Interval(mean, math.nan, math.nan, 1)
    error = float(known.std(ddof=1)) / math.sqrt(known.size)
    half = float(stdtrit(known.size - 1, 0.5 + LEVEL / 2.0)) * error
    return Interval(mean, mean - half, mean + half, int(known.size))


def compare(first: Sequence[float], second: Sequence[float]) -> Difference:
    """The paired difference; the values of a seed stand at the same place in both."""
    pairs = [a - b for a, b in zip(first, second, strict=True)]
    gap = interval(pairs)
    known = np.array([each for each in pairs if math.isfinite(each)])
    if known.size < 2:
        return Difference(gap, math.nan)
    error = float(known.std(ddof=1)) / math.sqrt(known.size)
    if error == 0.0:
        return Difference(gap, 1.0 if gap.mean == 0.0 else 0.0)
    chance = 2.0 * float(stdtr(known.size - 1, -abs(gap.mean) / error))
    return Difference(gap, chance)
