"""Series of any length in a table of bounded length: where it is full, neighbours are merged.

Each row is a mean, or a sum, over an interval; all intervals but the last are equally long, and
twice as long after each merging.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pricing.book import FloatArray
from simulations.measured.record import Table


class Series:
    """Several figures of several subjects, measured together again and again."""

    def __init__(self, figures: Mapping[str, bool], subjects: int, points_max: int) -> None:
        """`figures` by name, True where it is summed over an interval and not averaged."""
        assert points_max >= 2, "neighbours are merged in pairs"
        self._names = tuple(figures)
        self._summed = np.array([figures[name] for name in self._names], dtype=bool)
        self._most = points_max - points_max % 2
        self._points = np.zeros((self._most, len(self._names), subjects))
        self._at_s = np.zeros(self._most)
        self._full = 0
        self._span = 1
        """Measurements in a row."""
        self._open = np.zeros((len(self._names), subjects))
        self._count = 0

    def add(self, at_s: float, figures: Sequence[FloatArray] | FloatArray) -> None:
        """Add a measurement, of arrays by subject in the order of the names."""
        self._open += np.asarray(figures)
        self._count += 1
        if self._count == self._span:
            self._close(at_s)

    def table(self, subject: str, kinds: Mapping[str, type]) -> Table:
        """A row for each interval and subject, in this order; `subject` names their column."""
        points, subjects = self._full, self._points.shape[2]
        columns = {
            "at_s": np.repeat(self._at_s[:points], subjects),
            subject: np.tile(np.arange(subjects), points),
        }
        for place, name in enumerate(self._names):
            columns[name] = self._points[:points, place].ravel()
        return {name: columns[name].astype(kind) for name, kind in kinds.items()}

    def _close(self, at_s: float) -> None:
        if self._full == self._most:
            self._merge()
            if self._count < self._span:
                return
        self._points[self._full] = np.where(
            self._summed[:, np.newaxis], self._open, self._open / self._count
        )
        self._at_s[self._full] = at_s
        self._full += 1
        self._open[:] = 0.0
        self._count = 0

    def _merge(self) -> None:
        pairs = self._points.reshape(self._most // 2, 2, *self._points.shape[1:])
        merged = pairs.sum(axis=1)
        merged[:, ~self._summed] /= 2.0
        self._full = self._most // 2
        self._points[: self._full] = merged
        self._at_s[: self._full] = self._at_s[1::2]
        self._span *= 2
