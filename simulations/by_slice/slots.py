"""A table of calls under way: rows are put in, known by their slot, and taken out in any order."""

from __future__ import annotations

import numpy as np

from pricing.book import FloatArray, IntArray

_ROWS = 1_024


class Slots:
    """Rows of so many numbers; the table grows to as many as are ever in it at once."""

    def __init__(self, width: int) -> None:
        self._rows = np.zeros((_ROWS, width))
        self._free = np.arange(_ROWS)
        self._left = _ROWS

    @property
    def size(self) -> int:
        """How many rows are in it."""
        return self._rows.shape[0] - self._left

    def put(self, rows: FloatArray) -> IntArray:
        """Put rows in; return their slots."""
        while self._left < rows.shape[0]:
            self._grow()
        self._left -= rows.shape[0]
        slots = self._free[self._left : self._left + rows.shape[0]].copy()
        self._rows[slots] = rows
        return slots

    def take(self, slots: IntArray) -> FloatArray:
        """Take rows out; each slot is free again."""
        self._free[self._left : self._left + slots.size] = slots
        self._left += slots.size
        rows: FloatArray = self._rows[slots]
        return rows

    def _grow(self) -> None:
        size = self._rows.shape[0]
        self._rows = np.concatenate((self._rows, np.zeros_like(self._rows)))
        free = np.empty(2 * size, dtype=np.int64)
        free[: self._left] = self._free[: self._left]
        free[self._left : self._left + size] = np.arange(size, 2 * size)
        self._free, self._left = free, self._left + size
