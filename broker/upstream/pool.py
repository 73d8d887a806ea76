"""The connections to one origin: kept alive, last in first out, limited, with a queue.

A slot is held by each connection from the moment it is dialled until it is lost. Who waits for a
slot gets either a connection that has just become idle or the slot of one that was lost, in the
order of asking. A pool that has been without a connection for a while tells so, to be forgotten:
its origin may have left the catalog for good.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable

from broker.core.outcome import Fault, Outcome
from broker.upstream import faults
from broker.upstream.connection import Connection
from broker.upstream.dial import Dialler
from broker.upstream.faults import AttemptFailed
from broker.upstream.hoard import Hoard, Part
from broker.upstream.patience import patience
from broker.upstream.request import Limits, Origin, Timeouts
from broker.upstream.silence import Silence, silence_of

_TICK_S = 0.002
"""Timers of the loop count in milliseconds."""


class Turn(enum.Enum):
    """What a waiter gets when it is not a connection."""

    SLOT = enum.auto()
    LATE = enum.auto()
    CLOSING = enum.auto()


class OriginPool:
    """Connections to `origin`; `take` is the hot path, `obtain` the rest."""

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        dialler: Dialler,
        hoard: Hoard,
        forsaken: Callable[[Origin], object],
    ) -> None:
        """`forsaken` is called when nobody has used the pool for a while."""
        self.hoard = Part(hoard)
        self.loop = asyncio.get_running_loop()
        self.heard_at = self.loop.time()
        """When an answer ended last, or the pool began: no silence is older."""
        self._origin = origin
        self._limits = limits
        self._dialler = dialler
        self._forsaken = forsaken
        self._idle: list[Connection] = []
        self._waiters: deque[asyncio.Future[Connection | Turn]] = deque()
        self._slots = limits.connections_per_origin
        self._open: set[Connection] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None
        self._free_since = self.loop.time()
        """When its last slot became free, if all are."""

    def __repr__(self) -> str:
        busy = len(self._open) - len(self._idle)
        return f"<OriginPool busy={busy} idle={len(self._idle)} waiting={len(self._waiters)}>"

    @property
    def busy(self) -> int:
        """Connections with a call on them."""
        return len(self._open) - len(self._idle)

    @property
    def idle(self) -> int:
        """Connections kept for the next call."""
        return len(self._idle)

    def silence(self) -> Silence:
        """Return how long the calls under way have waited for a byte."""
        return silence_of(self._open, self.heard_at, self.loop.time())

    def take(self, now: float) -> Connection | None:
        """Return the idle connection that was used last, if there is one; `now` is loop time."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.closed:
                if now - connection.idle_since <= self._limits.idle_s:
                    return connection
                connection.abort()
        return None

    async def obtain(self, timeouts: Timeouts, total_due: float) -> tuple[Connection, bool]:
        """Return a connection and whether it was used before, dialling or waiting if need be.

        Raises `AttemptFailed`: nothing was sent.
        """
        due = min(self.loop.time() + timeouts.connect_s, total_due)
        while True:
            self._refuse_if_closing()
            if self._slots > 0:
                self._slots -= 1
                return await self._dial(due), False
            handed = await self._wait(due)
            if isinstance(handed, Turn):
                return await self._dial(due), False
            if not handed.closed:
                return handed, True

    async def dial_again(self, timeouts: Timeouts, total_due: float) -> Connection:
        """Return a connection that was never used, for a call whose connection was stale."""
        while True:
            connection, used = await self.obtain(timeouts, total_due)
            if not used:
                return connection
            connection.abort()  # as old as the one that failed: its slot is what we want

    def release(self, connection: Connection) -> None:
        """Take back a connection that is ready for the next request."""
        if self._waiters and self._pass_on(connection):
            return
        if self._closing is not None:
            connection.abort()
            return
        connection.idle_since = self.loop.time()
        self._idle.append(connection)
        self._reap_later(self._limits.idle_s)

    def lost(self, connection: Connection) -> None:
        """Forget a closed connection and pass its slot on."""
        if connection not in self._open:  # lost while it was dialled: `_dial` sees to the slot
            return
        self._open.remove(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._free_slot()
        if self._closing is not None and not self._open and not self._closing.done():
            self._closing.set_result(None)

    async def aclose(self) -> None:
        """Abort every call and close every connection; returns when the transports are gone."""
        if self._closing is None:
            self._closing = self.loop.create_future()
        if self._reaper is not None:
            self._reaper.cancel()
        while self._pass_on(Turn.CLOSING):
            pass
        for connection in tuple(self._open):
            if connection.response is not None:
                connection.response.abort()
            connection.abort()
        if self._open:
            await self._closing

    async def _dial(self, due: float) -> Connection:
        """Open a connection on a slot that is already ours; the slot goes back when it fails."""
        try:
            async with patience(due):
                connection = await self._dialler.dial(self._origin, self._new_connection, due)
        except Exception as error:
            self._free_slot()
            outcome = faults.of_connect_error(error)
            if isinstance(error, TimeoutError) and self._dialler.is_held_up(self._origin):
                detail = "no place to look up its name in time"
                outcome = Outcome(Fault.NO_ROOM, detail=detail, sent=False)
            raise AttemptFailed(outcome) from error
        except BaseException:
            self._free_slot()
            raise
        if connection.closed:
            self._free_slot()
            detail = "closed as soon as it was opened"
            raise AttemptFailed(Outcome(Fault.CONNECT_FAILED, detail=detail, sent=False))
        self._open.add(connection)
        if self._closing is not None:
            connection.abort()
            self._refuse_if_closing()
        return connection

    def _new_connection(self) -> Connection:
        return Connection(self, self._limits.head_bytes, self.loop)

    async def _wait(self, due: float) -> Connection | Turn:
        """Stand in the queue for a connection or a slot, until loop time `due`."""
        if len(self._waiters) >= self._limits.waiting_per_origin:
            raise AttemptFailed(self._full())
        waiter: asyncio.Future[Connection | Turn] = self.loop.create_future()
        self._waiters.append(waiter)
        timer = self.loop.call_at(due, _tell, waiter, Turn.LATE)
        try:
            turn = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():  # served, but the caller has left
                self._give_back(waiter.result())
            raise
        finally:
            timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        if turn is Turn.LATE:
            raise AttemptFailed(self._full())
        if turn is Turn.CLOSING:
            self._refuse_if_closing()
        return turn

    def _full(self) -> Outcome:
        detail = f"all {self._limits.connections_per_origin} connections are busy"
        return Outcome(Fault.OVERLOADED, detail=detail, sent=False)

    def _pass_on(self, turn: Connection | Turn) -> bool:
        """Give `turn` to the first in the queue; False when nobody waits."""
        while self._waiters:
            if _tell(self._waiters.popleft(), turn):
                return True
        return False

    def _give_back(self, turn: Connection | Turn) -> None:
        if isinstance(turn, Connection):
            if not turn.closed:
                self.release(turn)
        elif turn is Turn.SLOT:
            self._free_slot()

    def _free_slot(self) -> None:
        if not self._pass_on(Turn.SLOT):
            self._slots += 1
            if self._is_free():
                self._free_since = self.loop.time()
                self._reap_later(self._limits.idle_s)

    def _is_free(self) -> bool:
        return self._slots == self._limits.connections_per_origin and self._closing is None

    def _refuse_if_closing(self) -> None:
        if self._closing is not None:
            detail = "the client is closing"
            raise AttemptFailed(Outcome(Fault.CONNECT_FAILED, detail=detail, sent=False))

    def _reap_later(self, wait_s: float) -> None:
        if self._reaper is None:
            self._reaper = self.loop.call_later(max(wait_s, _TICK_S), self._reap)

    def _reap(self) -> None:
        """Drop what has been idle for too long; the oldest stand first."""
        self._reaper = None
        idle = self._idle
        stale_since = self.loop.time() - self._limits.idle_s + _TICK_S
        while idle and idle[0].idle_since <= stale_since:
            idle.pop(0).abort()
        if idle:
            self._reap_later(idle[0].idle_since - stale_since)
        elif self._is_free():
            if self._free_since > stale_since:
                self._reap_later(self._free_since - stale_since)
            elif self.hoard.held_bytes:  # else they would count no more against its origin
                self._reap_later(self._limits.idle_s)
            else:
                self._forsaken(self._origin)


def _tell(waiter: asyncio.Future[Connection | Turn], turn: Connection | Turn) -> bool:
    if waiter.done():
        return False
    waiter.set_result(turn)
    return True
