"""How much better an endpoint answers canaries than traffic: one that knows canaries shows here.

The difference of two means with an interval of 95 %, by Welch's standard error ("The significance
of the difference between two means when the population variances are unequal", 1938), each variance
bounded below by that of two more answers, one right and one wrong. Right and wrong are compared
with right and wrong. Scores on a scale are of a measure of their own: with these an endpoint's
difference is set beside the usual one of others in the domain, and alone it says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

Z = 1.959964
ENOUGH = 10
"""Below so many of either, nothing is said."""
TOLERATED = 0.05
"""A suite and the traffic of a domain need not be equally hard."""


class Tally(msgspec.Struct, frozen=True):
    """Scores within 0..1: how many, their sum, and the sum of their squares.

    Each by its weight of at most 1, so that the count is never above what the scores tell.
    """

    count: float
    total: float
    squares: float

    @property
    def mean(self) -> float | None:
        """The mean, None of nothing."""
        return self.total / self.count if self.count else None

    @property
    def error(self) -> float:
        """The variance of the mean."""
        count, total, squares = self.count + 2, self.total + 1.0, self.squares + 1.0
        return max(squares / count - (total / count) ** 2, 0.0) / max(self.count, 1)


class Gap(msgspec.Struct, frozen=True):
    """Canaries less traffic, None where there is too little of either."""

    apart: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def shows(self) -> bool:
        """True where canaries are surely answered better than traffic."""
        return self.low is not None and self.low > TOLERATED


@dataclass(frozen=True, slots=True)
class Heard:
    """What is known of an endpoint in a domain."""

    domain: str
    canaries: Tally
    exact: Tally
    """Feedback of right and wrong."""
    scaled: Tally
    """Feedback on a scale."""

    @property
    def apart(self) -> tuple[float, float] | None:
        """Canaries less feedback on a scale, and the variance of that; None of too little."""
        well, usual = self.canaries.mean, self.scaled.mean
        few = min(self.canaries.count, self.scaled.count) < ENOUGH
        if few or well is None or usual is None:
            return None
        return well - usual, self.canaries.error + self.scaled.error


def gaps_of(heard: Sequence[Heard]) -> list[Gap]:
    """Return the gap of each."""
    return [
        gap_between(each.canaries, each.exact)
        if each.exact.count >= ENOUGH
        else _beside_others(each, [other for other in heard if other is not each])
        for each in heard
    ]


def _beside_others(own: Heard, others: Sequence[Heard]) -> Gap:
    apart = own.apart
    alike = [each.apart for each in others if each.domain == own.domain]
    known = [each for each in alike if each is not None]
    if apart is None or not known:
        return Gap()
    usual = sum(mean for mean, _ in known) / len(known)
    error = apart[1] + sum(variance for _, variance in known) / len(known) ** 2
    more, reach = apart[0] - usual, Z * math.sqrt(error)
    return Gap(more, more - reach, more + reach)


def gap_between(canaries: Tally, traffic: Tally) -> Gap:
    """Return the gap."""
    well, usual = canaries.mean, traffic.mean
    if well is None or usual is None or min(canaries.count, traffic.count) < ENOUGH:
        return Gap()
    reach = Z * math.sqrt(canaries.error + traffic.error)
    return Gap(well - usual, well - usual - reach, well - usual + reach)
