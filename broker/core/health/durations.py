"""How long things took, counted by bounds: a histogram that only rises, as Prometheus has them."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CALL_BOUNDS_S: Final = (*BOUNDS_S[2:], 30.0, 60.0, 120.0, 300.0)
"""Of calls: none is sooner than a few milliseconds, and an answer may take minutes."""


class Durations:
    """Told of durations in seconds."""

    __slots__ = ("_bounds_s", "_counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...] = BOUNDS_S) -> None:
        """`bounds_s` ascend; what is above the last is counted as well."""
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Be told of one."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self.sum_s += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """Return for each bound, as text, how many were no longer; the last bound is `+Inf`."""
        total, told = 0, []
        for bound, count in zip((*map(str, self._bounds_s), "+Inf"), self._counts, strict=True):
            total += count
            told.append((bound, total))
        return told
