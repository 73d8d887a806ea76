"""Counts the swings of prices: turns that are larger than what single calls do.

A price has swung where it is further than `SWING` from the highest or the lowest that it has come
to since it swung before. Reversals from tick to tick count each call that comes and goes near the
target; swings are what a loop that oscillates has.
"""

from __future__ import annotations

import math

import numpy as np

from pricing.book import FloatArray, IntArray

SWING = 0.05
"""A price that turns by less than this has followed single calls that came and went."""


class Turns:
    """By endpoint."""

    def __init__(self, size: int) -> None:
        self.swings: IntArray = np.zeros(size, dtype=np.int64)
        self._way = np.zeros(size)
        """1 while it rises, -1 while it falls, 0 until it has moved."""
        self._far = np.full(size, np.nan)
        """The logarithm of the furthest that it has come to on this way."""

    def add(self, log_price: FloatArray) -> None:
        """Follow the prices to those of the next tick; NaN where there is none moves nothing."""
        self._far = np.where(np.isnan(self._far), log_price, self._far)
        step = log_price - self._far
        turned = (np.abs(step) > math.log1p(SWING)) & (self._way * step <= 0.0)
        self.swings += turned & (self._way != 0.0)
        self._far = np.where(turned | (self._way * step > 0.0), log_price, self._far)
        self._way = np.where(turned, np.sign(step), self._way)
