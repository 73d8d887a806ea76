"""Learns from how long things take how many may be under way at once.

    gradient = clip(TOLERANCE * least / now, 1/2, 1)
    limit <- (1 - SMOOTHING) * limit + SMOOTHING * (limit * gradient + sqrt(limit))

where `now` over `least` is how much longer things of a kind have taken, over a window, than such
things take when there is little to do. It is what TCP Vegas does with round-trip times (Brakmo &
Peterson, 1995), in the form of Netflix's concurrency-limits (its GradientLimit, with the square
root as the queue that is allowed). What is alike in size is compared with its own kind alone, for
an answer of a thousand tokens takes longer than one of ten, and is not late for that.

The least is not forgotten while there is much to do: else a queue that stands would come to be
taken for usual, and the limit would creep up. With little to do, it follows what is seen.
"""

from __future__ import annotations

import math
from typing import Final

TOLERANCE: Final = 4.0
"""So many times the least is no sign of a queue: servers that batch slow down as they fill."""
SMOOTHING: Final = 0.3
WINDOW_S: Final = 0.5
SAMPLES_MIN: Final = 8
LEAST: Final = 1.0
"""The limit goes no lower, so that there is always somebody to learn from."""
FEW: Final = 4
"""With so few under way there is little to do. As 4 / 2 + sqrt(4) = 4, time alone cuts no lower:
who became slow for good is learned anew there."""
REFUSED_FACTOR: Final = 0.9
_DOWN: Final = 0.3
_IDLE: Final = 0.05
"""How fast the least follows what is seen: what is less, and what is more with little to do."""
_KINDS_MAX: Final = 256
"""Sizes go by powers of two of two counts, so there are hardly more."""


def kind_of(size_in: int, size_out: int) -> int:
    """Return a number for all things of about this size: each count to a power of two."""
    return (size_in >> 6).bit_length() << 6 | size_out.bit_length()


class Gradient:
    """The limit of one thing, from `least` to `most`. Times are seconds of one clock."""

    __slots__ = ("_busiest", "_count", "_due_s", "_least_ms", "_sum", "least", "limit", "most")

    def __init__(self, most: float, now_s: float, least: float = LEAST) -> None:
        self.most = most
        self.least = least
        self.limit = most
        self._least_ms: dict[int, float] = {}
        self._sum = 0.0
        self._count = 0
        self._busiest = 0
        self._due_s = now_s + WINDOW_S

    def tell(self, kind: int, took_ms: float, under_way: int, now_s: float) -> bool:
        """Be told that one of a kind has ended with so many under way, itself counted; True when
        the limit has changed."""
        if took_ms < 0.001:
            took_ms = 0.001
        least_ms = self._least_ms.get(kind)
        if least_ms is None:
            if len(self._least_ms) >= _KINDS_MAX:
                return False
            self._least_ms[kind] = least_ms = took_ms
        elif took_ms < least_ms:
            self._least_ms[kind] = least_ms = least_ms + _DOWN * (took_ms - least_ms)
        elif under_way <= FEW or 4 * under_way <= self.limit:
            self._least_ms[kind] = least_ms = least_ms + _IDLE * (took_ms - least_ms)
        self._sum += took_ms / least_ms
        self._count += 1
        if under_way > self._busiest:
            self._busiest = under_way
        return now_s >= self._due_s and self._count >= SAMPLES_MIN and self._turn(now_s)

    def refused(self, under_way: int) -> bool:
        """Be told that the server itself had no room with so many under way; True when the limit
        has changed."""
        before = self.limit
        self.limit = max(min(before, REFUSED_FACTOR * under_way), self.least)
        return self.limit != before

    def _turn(self, now_s: float) -> bool:
        longer = self._sum / self._count
        before, busiest = self.limit, self._busiest
        self._sum, self._count, self._busiest = 0.0, 0, 0
        self._due_s = now_s + WINDOW_S
        gradient = min(max(TOLERANCE / longer, 0.5), 1.0)
        if gradient == 1.0 and 2 * busiest < before:
            return False  # far from the limit: nothing was learned of it
        wanted = before * gradient + math.sqrt(before)
        self.limit = min(max(before + SMOOTHING * (wanted - before), self.least), self.most)
        return self.limit != before
