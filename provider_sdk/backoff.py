"""Growing pauses between attempts, with jitter, for ever."""

from __future__ import annotations

import random


class Backoff:
    """Doubles from `first_s` to `most_s`; each pause is spread over half to all of it."""

    def __init__(self, first_s: float, most_s: float, rng: random.Random) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng
        self._next_s = first_s

    def next_s(self) -> float:
        """How long to pause now."""
        pause_s = self._next_s
        self._next_s = min(self._most_s, pause_s * 2)
        return pause_s * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked: begin small the next time."""
        self._next_s = self._first_s
