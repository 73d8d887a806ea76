"""A dictionary that forgets what nobody has asked for in a while.

It is kept in two generations: what was asked for since the last turn, and what was before. A turn
lets go of what is left of the older one, so it looks at no entry that is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

FORGET_AFTER_S: Final = 120.0
"""What was not asked for in so long is forgotten, and at the latest in twice as long."""


class Recent(dict[Key, Value]):
    """What was asked for since the last turn; `[]` finds what was before as well."""

    __slots__ = ("_before", "_turn_s")

    def __init__(self) -> None:
        super().__init__()
        self._before: dict[Key, Value] = {}
        self._turn_s: float | None = None

    def __missing__(self, key: Key) -> Value:
        value = self[key] = self._before.pop(key)
        return value

    def every(self) -> Iterator[Value]:
        """Go through all that is not forgotten, which is not asking for it."""
        yield from self.values()
        yield from self._before.values()

    def count(self) -> int:
        """Return how many are not forgotten."""
        return len(self) + len(self._before)

    def forget(self) -> None:
        """Forget all."""
        self.clear()
        self._before.clear()

    def turn(self, now_s: float, kept: Callable[[Value], bool] = lambda _: False) -> None:
        """Be told, now and then, that time passes: forget what has to be, but for what is `kept`
        whoever asks. Times are seconds of one clock."""
        if self._turn_s is None:
            self._turn_s = now_s + FORGET_AFTER_S
        if now_s < self._turn_s:
            return
        self._turn_s = now_s + FORGET_AFTER_S
        spared = {key: value for key, value in self._before.items() if kept(value)}
        self._before = self.copy()
        self.clear()
        self.update(spared)
