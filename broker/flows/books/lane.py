"""A lane to the books: one connection, one statement in flight; what arrives meanwhile goes next.

A batch that the books refuse is halved until only the offender fails. A lost connection is opened
anew by the next batch; what it means for the batch that was under way, the subclass decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import asyncpg
import structlog

from broker.core.health.durations import Durations
from broker.errors import Unavailable
from broker.flows.process.outage import ledger_outage
from broker.store import ledger
from broker.store.away import DRIVER_AWAY
from broker.upstream.patience import patience

Item = TypeVar("Item")
Result = TypeVar("Result")

_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 1.0
_RESTART: Final = "This is a fault of the broker. It takes no more calls: restart this process."

_log = structlog.get_logger()


class Lane(ABC, Generic[Item, Result]):
    """The machinery; a subclass says what one batch sends and what its outcome means."""

    def __init__(self, pool: asyncpg.Pool, rows_max: int, statement_s: float) -> None:
        self._pool = pool
        self._rows_max = rows_max
        self._statement_s = statement_s
        self.queue: deque[Item] = deque()
        """What waits for the next statement."""
        self.commits = Durations()
        """How long each statement took to be durable."""
        self.waits = Durations()
        """How long callers waited until what they asked for was; empty where none waits."""
        self.outage = ledger_outage(type(self).__name__)
        self._idle: asyncio.Future[None] | None = None
        self._closing = False
        self._connection: ledger.Connection | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name=type(self).__name__)
        self._task.add_done_callback(self._tell_of_death)

    @property
    def has_died(self) -> bool:
        """True where it has ended by a fault of its own: this process will send nothing more."""
        return self._task is not None and self._task.done() and not self._closing

    async def close(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s`, and let go of the connection."""
        self._closing = True
        self._wake()
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=timeout_s)
            if not done:
                self._task.cancel()
                await asyncio.wait([self._task])
        self._abandon()
        await self._drop()

    def put(self, item: Item) -> None:
        """Queue one item for the next statement. Raises Unavailable once closed."""
        if self._task is None or self._task.done():
            raise Unavailable("The ledger is closed.")
        self.queue.append(item)
        if self._idle is not None:
            self._wake()

    def _tell_of_death(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("lane_died", lane=type(self).__name__, advice=_RESTART, exc_info=fault)

    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)

    async def _run(self) -> None:
        while True:
            if self.queue:
                await self._work()
                await asyncio.sleep(0)  # what the loop has heard meanwhile goes with the next
            elif self._closing:
                return
            else:
                self._idle = asyncio.get_running_loop().create_future()
                await self._idle

    @abstractmethod
    async def _work(self) -> None:
        """Send one batch and deal with all that can become of it; raises nothing but a cancel."""

    @abstractmethod
    async def _send(self, connection: ledger.Connection, items: Sequence[Item]) -> Sequence[Result]:
        """Send one statement for all items; cut off after `_statement_s`."""

    @abstractmethod
    def _deliver(self, items: Sequence[Item], results: Sequence[Result]) -> None:
        """Tell the waiting callers."""

    @abstractmethod
    async def _offend(self, item: Item, error: Exception) -> None:
        """Deal with the one item that the books refuse."""

    @abstractmethod
    def _abandon(self) -> None:
        """Tell the callers that still wait that nothing more will be sent."""

    async def _execute(self, items: Sequence[Item]) -> None:
        """Send and deliver, in halves where the books refuse. Raises when the database is away, or
        has no session for it."""
        connection = await self._connected()
        try:
            begun_s = time.monotonic()
            # Of the driver's own time-outs each would fire first after a halt of this process, with
            # the answer unread: calls would be refused that the ledger has long accepted.
            async with patience(asyncio.get_running_loop().time() + self._statement_s):
                results = await self._send(connection, items)
            self.commits.add(time.monotonic() - begun_s)
            self.outage.over()
        except Exception as error:
            if ledger.is_away(error):
                await self._drop()
                raise
            if len(items) == 1:
                await self._offend(items[0], error)
                return
            middle = len(items) // 2
            await self._execute(items[:middle])
            await self._execute(items[middle:])
            return
        self._deliver(items, results)

    async def _connected(self) -> ledger.Connection:
        if self._connection is not None and ledger.is_lost(self._connection):
            await self._drop()
        if self._connection is None:
            try:
                async with patience(asyncio.get_running_loop().time() + self._statement_s):
                    self._connection = await self._pool.acquire()
                    await ledger.prepare_session(self._connection)
            except Exception:
                # Whatever it was, no row is to blame, and nothing is sent without these settings.
                await self._drop()
                raise
        return self._connection

    async def _drop(self) -> None:
        """Cut the connection: its statement may still run, and must not be waited for; its session
        has settings of its own."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not ledger.is_lost(connection):
            connection.terminate()
        with contextlib.suppress(*DRIVER_AWAY):
            await self._pool.release(connection, timeout=1)


class BackOff:
    """Growing pauses with jitter."""

    def __init__(self) -> None:
        self._pause_s = _RETRY_FIRST_S

    def reset(self) -> None:
        """Begin with short ones again."""
        self._pause_s = _RETRY_FIRST_S

    async def sleep(self) -> None:
        """Wait for the next one."""
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _RETRY_MAX_S)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
