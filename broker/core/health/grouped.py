"""Blends many values into moving averages at once, as one after the other would have done it."""

from __future__ import annotations

import numpy as np

from broker.core.columns import Floats, Numbers

LATENCY_WEIGHT = 0.2
"""Of the newest value."""
LATENCY_MS_MIN = 0.01
"""Nothing takes no time, and scores divide by it."""


class Groups:
    """Values in some order, sorted by whom they are of."""

    def __init__(self, numbers: Numbers) -> None:
        self._order = numbers.argsort(kind="stable")
        counts = np.bincount(numbers)
        self.numbers = counts.nonzero()[0]
        self.counts = counts[self.numbers]
        self._first = self.counts.cumsum() - self.counts
        behind = np.repeat(self._first + self.counts, self.counts) - np.arange(numbers.size) - 1
        self._weight = LATENCY_WEIGHT * (1 - LATENCY_WEIGHT) ** behind

    def blend(self, averages: Floats, newest: Floats, prior: float | None = None) -> None:
        """As `Pulse._measure` does it, of one value after the other; what is the prior is fresh."""
        if not newest.size:
            return
        newest, numbers = newest[self._order], self.numbers
        before = averages[numbers]
        if prior is not None:
            fresh = (before == prior).nonzero()[0]
            first = self._first[fresh]
            newest[first] = before[fresh] = np.maximum(newest[first], LATENCY_MS_MIN)
        before *= (1 - LATENCY_WEIGHT) ** self.counts
        averages[numbers] = before + np.add.reduceat(self._weight * newest, self._first)
