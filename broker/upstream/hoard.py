"""Bounds the bytes of all answers together that are kept whole, until their callers have them.

One origin's may be half of them, so that no provider takes the room of all others. What every
answer may have anyway is not counted: there are only so many calls at once.
"""

from __future__ import annotations

from typing import Final

from broker.core.outcome import Fault, Outcome
from broker.upstream.response import WHOLE, Response

FREE_BYTES: Final = 65_536
"""Of each answer, so many are not counted."""


class Hoard:
    """The bytes of all origins."""

    __slots__ = ("held_bytes", "most_bytes")

    def __init__(self, most_bytes: int) -> None:
        self.held_bytes = 0
        self.most_bytes = most_bytes


class Kept:
    """Bytes that are counted until nobody holds this any more."""

    __slots__ = ("_part", "size_bytes")

    def __init__(self, part: Part, size_bytes: int) -> None:
        """They are counted already."""
        self._part = part
        self.size_bytes = size_bytes

    def __del__(self) -> None:
        # Not by hand: an answer goes through many, any of which may fail to hand it on.
        self._part.count(-self.size_bytes)


class Part:
    """Those of one origin."""

    __slots__ = ("_hoard", "held_bytes")

    def __init__(self, hoard: Hoard) -> None:
        self._hoard = hoard
        self.held_bytes = 0

    def count(self, more_bytes: int) -> bool:
        """Count more bytes, or fewer; False when they are too many now."""
        self.held_bytes += more_bytes
        hoard = self._hoard
        hoard.held_bytes += more_bytes
        most_bytes = hoard.most_bytes
        return hoard.held_bytes <= most_bytes and 2 * self.held_bytes <= most_bytes

    def takes(self, response: Response) -> bool:
        """Count what has come of an answer that is to be kept. Where there is no room for it, have
        it passed on as it comes, or fail it if it may not be."""
        more_bytes = response.buffered - FREE_BYTES - response.counted_bytes
        if more_bytes <= 0 or response.wants != WHOLE:
            return True
        response.counted_bytes += more_bytes
        fits = self.count(more_bytes)
        if response.opens and not (fits and response.buffered <= response.room):
            response.open()
            self.forget(response)
            return True
        if fits:
            return True
        response.fail(no_room(response.status))
        return False

    def keep(self, response: Response) -> None:
        """Count an answer that has come whole for as long as it is held."""
        response.kept = Kept(self, response.counted_bytes)
        response.counted_bytes = 0

    def forget(self, response: Response) -> None:
        """Count an answer no more."""
        if response.counted_bytes:
            self.count(-response.counted_bytes)
            response.counted_bytes = 0


def no_room(status: int) -> Outcome:
    """Return the end of an answer that there is no room for, which is not its provider's fault."""
    return Outcome(Fault.NO_ROOM, status=status, detail="there is no room for more large answers")
