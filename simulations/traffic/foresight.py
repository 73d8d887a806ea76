"""What callers believe a call will take: the mean of what calls took lately, older ones less.

    mean = sum of seconds / (calls + 1),    both forgotten at the rate 1 / memory

The one call more took no time: who has not heard of any wait for long believes that there is none,
and tries again. Without it a queue that was once so long that nobody joins would never be known to
have gone.
"""

from __future__ import annotations

import math


class Memory:
    """Of one class of callers."""

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._calls = 0.0
        self._seconds = 0.0
        self._at_s = 0.0

    def hear(self, took_s: float, now_s: float, calls: int = 1) -> None:
        """Be told of calls that ended now, and took so long together."""
        self._forget(now_s)
        self._calls += calls
        self._seconds += took_s

    def foreseen_s(self, now_s: float) -> float:
        """Return what a call that begins now is believed to take."""
        self._forget(now_s)
        return self._seconds / (self._calls + 1.0)

    def _forget(self, now_s: float) -> None:
        kept = math.exp((self._at_s - now_s) / self._memory_s)
        self._calls *= kept
        self._seconds *= kept
        self._at_s = now_s
