"""When a limit is lowered for a moment, to learn how long things take with little to do; and what
counts then."""

from __future__ import annotations

from typing import Final

from broker.core.health.usual import FEW

EVERY_S: Final = 30.0
LASTS_S: Final = 2.0
LASTS_S_MAX: Final = 30.0
SHARE: Final = 20.0
"""Of the time, at most a part in so many is spent on it."""
ENOUGH: Final = 64
"""After so many it is over: a server that was slow when it began may be quick by then."""


class Alone:
    """The moments of one limit. Times are seconds of one clock."""

    __slots__ = ("_count", "_due_s", "_since_s", "_until_s", "now")

    def __init__(self, now_s: float) -> None:
        self.now = False
        """True while it lasts."""
        self._due_s = now_s + EVERY_S
        self._until_s = 0.0
        self._since_s: float | None = None
        self._count = 0

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time again."""
        return now_s >= self._due_s

    def begin(self, now_s: float, took_s: float) -> None:
        """Begin, where things take about so long."""
        lasts_s = min(max(4 * took_s, LASTS_S), LASTS_S_MAX)
        self._until_s = now_s + lasts_s
        self._due_s = now_s + max(EVERY_S, SHARE * lasts_s)
        self._since_s, self._count, self.now = None, 0, True

    def counts(self, took_ms: float, under_way: int, now_s: float) -> bool:
        """Return whether one that ends now began with but few under way, and count it."""
        if self._since_s is None and under_way <= FEW + 1:
            self._since_s = now_s
        # What began before may have waited behind those that are gone by now.
        if self._since_s is None or now_s - took_ms / 1_000 < self._since_s:
            return False
        self._count += 1
        return True

    def ends(self, now_s: float) -> bool:
        """Return whether it has just come to its end."""
        if not self.now or (now_s < self._until_s and self._count < ENOUGH):
            return False
        self.now = False
        return True
