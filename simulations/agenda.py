"""What is to happen when: a heap of moments, each with what is then done.

The kernel of the event engine. Of one moment, what was entered first is done first, so a run does
not depend on how a heap breaks ties.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Act = Callable[[float, Any], None]
"""Called with the moment, and with what was handed in for it."""


class Agenda:
    """Times are seconds of the run."""

    __slots__ = ("_order", "heap")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Act, Any]] = []
        """(moment, order of entry, what to do, with what); the engine looks at its head."""
        self._order = 0

    def add(self, at_s: float, act: Act, subject: Any = None) -> None:
        """Enter what is to be done at a moment."""
        self._order += 1
        heappush(self.heap, (at_s, self._order, act, subject))

    def do_until(self, to_s: float) -> None:
        """Do everything of moments up to `to_s`, what is entered meanwhile too."""
        heap = self.heap
        while heap and heap[0][0] <= to_s:
            at_s, _, act, subject = heappop(heap)
            act(at_s, subject)

    def repeat(self, every_s: float, act: Act, first_s: float, subject: Any = None) -> None:
        """Do something again and again: at `first_s`, and at whole multiples of the gap after."""

        def again(_: float, count: int) -> None:
            act(first_s + count * every_s, subject)
            self.add(first_s + (count + 1) * every_s, again, count + 1)

        self.add(first_s, again, 0)
