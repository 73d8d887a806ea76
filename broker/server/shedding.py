"""Keeps the connections of callers so few that what serves them finds a file to connect by.

Where there is no room for one more, who has asked nothing for longest is let go.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Set
from typing import Final, Protocol, cast

from broker.server.refusals import refusal
from broker.server.uploads import Uploads

_RANK_EVERY_S: Final = 0.25
"""All connections are looked at no more often than this, however many come."""
_RANKED: Final = 1_000
IDLE_S: Final = 1.0
"""Who was served or came just now is about to ask: to let them go would fail a call."""
HEARD_S: Final = 1.0
_HEARD_MAX: Final = 16
"""So many who are turned away keep a file of those that are reserved until they have heard."""


class Idler(Protocol):
    """A connection, as far as it may be let go."""

    idle_since: float

    @property
    def asks_nothing(self) -> bool: ...
    @property
    def has_begun(self) -> bool: ...
    @property
    def has_unread(self) -> bool: ...
    def abort(self) -> None: ...


class Shedding:
    """Finds who is let go, without a look at all connections for each that comes."""

    def __init__(
        self,
        connections: Set[Idler],
        most: int,
        uploads: Uploads,
        now_s: Callable[[], float],
    ) -> None:
        self._connections = connections
        self._most = most
        self._uploads = uploads
        self._now_s = now_s
        self._ranked: list[tuple[bool, float, Idler]] = []
        """The next to be let go stands last."""
        self._rank_at_s = 0.0

    def make_room(self) -> bool:
        """Let somebody go where there is no room for one more; False where nobody has been idle.

        Who stalls midway in a body goes before who may ask again, for it may be there to keep
        others out. Who has begun to send a head, or to take an answer, goes after all others; who
        has asked what is yet to be read, as after a halt, stays.
        """
        if len(self._connections) < self._most:
            return True
        if self._uploads.let_go() or self._let_go(begun_too=False):
            return True
        if self._now_s() >= self._rank_at_s:  # others may be idle by now
            self._rank_at_s = self._now_s() + _RANK_EVERY_S
            self._ranked = self._rank()
        return self._let_go(begun_too=True)

    def _let_go(self, *, begun_too: bool) -> bool:
        """Let the next of those go that were idle at the last look; False where none still is."""
        while self._ranked and (begun_too or not self._ranked[-1][0]):
            begun, since_s, connection = self._ranked.pop()
            may_go = self._may_go(connection) and not connection.has_unread
            if may_go and (begun, since_s) == _place(connection):
                connection.abort()
                return True
        return False

    def _rank(self) -> list[tuple[bool, float, Idler]]:
        idle = ((*_place(each), each) for each in self._connections if self._may_go(each))
        return heapq.nsmallest(_RANKED, idle, key=lambda ranked: ranked[:2])[::-1]

    def _may_go(self, connection: Idler) -> bool:
        asked_long_ago = self._now_s() - connection.idle_since >= IDLE_S
        return asked_long_ago and connection.asks_nothing


class TurnedAway(asyncio.Protocol):
    """A connection that is told that there is no room for it.

    It is heard a little longer: who is closed upon unread bytes is reset, and may never know why.
    """

    def __init__(self, others: set[TurnedAway]) -> None:
        self._others = others
        self._limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        told = cast(asyncio.Transport, transport)
        told.write(refusal(503))
        if len(self._others) >= _HEARD_MAX:
            told.close()
            return
        told.write_eof()
        self._others.add(self)
        self._limit = asyncio.get_running_loop().call_later(HEARD_S, told.abort)

    def connection_lost(self, _: Exception | None) -> None:
        self._others.discard(self)
        if self._limit is not None:
            self._limit.cancel()


def _place(connection: Idler) -> tuple[bool, float]:
    return connection.has_begun, connection.idle_since
