"""How many holds to open before their calls have come, by how densely a key's calls come.

A hold waits for a commit. A key whose calls come densely has the next ones' holds opened in
advance, so that a call finds one ready and waits for nothing. Each is a hold as any other: durable,
counted in its payer's balance, closed by one settlement; one that no call took is released.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final
from uuid import UUID

import msgspec

from broker.core.ledger import Hold

WINDOW_S: Final = 0.25
CALLS_MIN: Final = 12
"""In a window: where fewer come, each opens its own."""
COVER_S: Final = 0.05
"""So long what is ready lasts, several times what a statement takes."""
READY_MAX: Final = 256
UNUSED_S: Final = 0.5
"""What no call has taken for so long is released."""
LATE_S: Final = 10.0
"""One asked for so long ago is taken by no call, however fresh its answer looks: that waited for a
halted process, which others may have taken for dead, and released what it held."""
MANY_TIMES: Final = 50
"""An account must be able to pay for so many times what is opened ahead at once: ahead of its calls
no more than a few hundredths of it are held, and others of its calls are not refused for that."""
_HEADROOM_SHIFT: Final = 4
"""They are for a sixteenth more than the largest of late, for prices move."""


class Ready(msgspec.Struct, frozen=True, gc=False):
    """A durable hold that waits for its call."""

    hold: Hold
    id_text: str
    """The id that its call will have."""
    asked_s: float
    opened_s: float

    def is_stale(self, now_s: float) -> bool:
        """Whether no call may take it any more."""
        return now_s - self.opened_s > UNUSED_S or now_s - self.asked_s > LATE_S


class Shelf:
    """The ready holds for calls of one key and one order of magnitude, and the demand for them."""

    __slots__ = (
        "_calls",
        "_most_nanos",
        "_rests_until_s",
        "_since_s",
        "account",
        "amount_nanos",
        "coming",
        "key_id",
        "ready",
        "wanted",
    )

    def __init__(self, account: UUID, key_id: str, now_s: float) -> None:
        """`account` is the ledger account that pays; `now_s`, here and below, is monotonic."""
        self.account = account
        self.key_id = key_id
        self.ready: deque[Ready] = deque()
        """Oldest first."""
        self.coming = 0
        """So many are being opened."""
        self.wanted = 0
        """So many are to be there, or on their way."""
        self.amount_nanos = 0
        """What each to be opened is for."""
        self._since_s = now_s
        self._calls = 0
        self._most_nanos = 0
        self._rests_until_s = 0.0

    def take(self, amount_nanos: int, now_s: float) -> Ready | None:
        """Return a hold for a call that needs so much, or None: it opens its own."""
        if now_s - self._since_s >= WINDOW_S:
            self._turn(now_s)
        self._calls += 1
        if amount_nanos > self._most_nanos:
            self._most_nanos = amount_nanos
        if not self.ready:
            return None
        first = self.ready[0]
        if first.hold.amount_nanos < amount_nanos:
            self._lift(amount_nanos)
            return None
        if first.is_stale(now_s):
            return None  # as after a halt: others may have taken this process for dead
        return self.ready.popleft()

    @property
    def held_nanos(self) -> int:
        """So much is held for what is ready and on its way, or a little more."""
        # What is on its way may have been asked for when the largest of late was twice as much.
        coming_nanos = 3 * self.coming * self.amount_nanos
        return coming_nanos + sum(each.hold.amount_nanos for each in self.ready)

    def due(self, now_s: float) -> int:
        """Return how many to open now."""
        there = len(self.ready) + self.coming
        if 2 * there > self.wanted or now_s < self._rests_until_s:
            return 0
        return self.wanted - there

    def refused(self, now_s: float) -> None:
        """Be told that the account has no room for one more: those there are do for this window."""
        self.wanted = len(self.ready) + self.coming
        if not self.wanted:
            self.rest(now_s)

    def rest(self, now_s: float) -> None:
        """Have none opened for a while."""
        self._rests_until_s = now_s + 4 * WINDOW_S

    def unused(self, now_s: float) -> list[Hold]:
        """Take out, and return, what has waited too long."""
        ready, out = self.ready, []
        while ready and ready[0].is_stale(now_s):
            out.append(ready.popleft().hold)
        return out

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands on it, nor is on its way."""
        return not self.ready and not self.coming

    def _turn(self, now_s: float) -> None:
        """Judge a window that is over, and begin another."""
        took_s = now_s - self._since_s
        dense = self._calls >= CALLS_MIN and took_s < 2 * WINDOW_S
        self.wanted = min(math.ceil(self._calls / took_s * COVER_S), READY_MAX) if dense else 0
        self.amount_nanos = 0
        self._lift(self._most_nanos)
        self._since_s, self._calls, self._most_nanos = now_s, 0, 0

    def _lift(self, amount_nanos: int) -> None:
        if amount_nanos > self.amount_nanos:
            self.amount_nanos = amount_nanos + (amount_nanos >> _HEADROOM_SHIFT)
