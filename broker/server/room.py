"""Counts the bytes of all bodies together, and whose they are: nobody takes the room of all others.

An account may hold as much as is left free (Choudhury & Hahne, 1998: dynamic thresholds): one alone
has half of the room, two have a third each, and whoever comes next finds some.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from broker.errors import BrokerError, TooManyCalls, Unavailable

BEGUN: Final = 1.5
"""What has begun to come may go on until so many times the room is taken: it was let in."""
LARGE_BYTES: Final = 65_536
"""A body above this counts until it has been answered. When so much of one has come, more than so
much that is to come is read in place: nobody gets a block of memory for a mere head."""
_AGAIN_S: Final = 1.0


class Room:
    """The bodies of one server."""

    __slots__ = ("_by_owner", "held_bytes")

    def __init__(self) -> None:
        self.held_bytes = 0
        """Of all bodies that are coming, and of large ones that are not answered."""
        self._by_owner: dict[Hashable, int] = {}

    def count(self, owner: Hashable, more_bytes: int) -> None:
        """Count more bytes, or fewer, of a body; `owner` is None where nobody is known to pay."""
        self.held_bytes += more_bytes
        if owner is not None:
            bytes_now = self._by_owner.get(owner, 0) + more_bytes
            if bytes_now:
                self._by_owner[owner] = bytes_now
            else:
                self._by_owner.pop(owner, None)

    def refusal(self, owner: Hashable, most_bytes: float) -> BrokerError | None:
        """Return why there is no room for more of an owner's, None where there is some."""
        if self.held_bytes > most_bytes:
            return Unavailable(
                "The broker has too many large requests in hand.",
                code="overloaded",
                retry_after_s=_AGAIN_S,
            )
        if self.held_bytes + self._by_owner.get(owner, 0) > most_bytes:
            return TooManyCalls(
                "Your account has too many large requests in hand: send more when some have ended.",
                code="large_requests",
                retry_after_s=_AGAIN_S,
            )
        return None


class Held:
    """Bytes that count until nobody holds this any more."""

    __slots__ = ("_owner", "_room", "_size_bytes")

    def __init__(self, room: Room, owner: Hashable, size_bytes: int) -> None:
        self._room = room
        self._owner = owner
        self._size_bytes = size_bytes
        room.count(owner, size_bytes)

    def __del__(self) -> None:
        # Not by hand: a request may end in many ways, or never be served.
        self._room.count(self._owner, -self._size_bytes)
