"""Shows that this process lives, so that the holds of a dead one can be released soon.

A process locks its number in a session of its own. When the process dies, the session ends and the
lock falls free; a sweep that finds it free waits a grace, and then releases the holds which that
process opened. The lock also falls free when PostgreSQL restarts or the connection breaks while
the process lives: it is taken again at once, and taking it clears the suspicion. The grace counts
from the first sweep that finds the lock free, by the database's clock, so it begins only when the
database is back. While a process is not taken for dead, its holds do not expire either
(`broker.flows.books.sweep`), for it may keep settlements back until the database answers again.
What remains: a process that serves on but cannot reach the database with its lease for longer than
the grace loses its open holds; its settlements then find the holds gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import asyncpg
import structlog

from broker.flows.process.outage import Outage
from broker.store import leases, ledger
from broker.store.away import DRIVER_AWAY, told

_RETRY_S: Final = 1.0
_ANSWER_S: Final = 10.0
_FAREWELL_S: Final = 2.0
"""Else a sweep finds out."""

_log = structlog.get_logger()


class Lease:
    """One process's sign of life, on one connection of `pool` that it keeps."""

    def __init__(self, pool: asyncpg.Pool, beat_s: float = 5.0) -> None:
        self._pool = pool
        self._beat_s = beat_s
        self._connection: ledger.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._process_id = 0
        self._outage = Outage(
            "lease_lost",
            "lease_held_again",
            "while PostgreSQL is away others may take this process for dead, and release the holds"
            " of its calls: those end unpaid",
        )

    @property
    def process_id(self) -> int:
        """The number that this process's holds carry."""
        assert self._process_id, "acquire comes first"
        return self._process_id

    @property
    def is_held(self) -> bool:
        """Whether the lock is ours, as far as we know."""
        return self._connection is not None

    async def acquire(self) -> int:
        """Draw a number and lock it; return it. Raises what asyncpg raises without a database."""
        connection = await self._pool.acquire(timeout=_ANSWER_S)
        try:
            self._process_id = await leases.register(connection)
            await leases.take(connection, self._process_id)
        except BaseException:
            await self._hand_back(connection)
            raise
        self._connection = connection
        self._task = asyncio.create_task(self._keep(), name="Lease")
        return self._process_id

    async def release(self) -> None:
        """Give the lease up, after the last settlement."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if not ledger.is_lost(connection):
                async with asyncio.timeout(_FAREWELL_S):
                    await leases.give_up(connection, self._process_id)
        except DRIVER_AWAY as error:
            _log.warning("lease_left_to_a_sweep", error=told(error))
        finally:
            await self._hand_back(connection)

    async def _keep(self) -> None:
        while True:
            held = self.is_held
            try:
                await self._beat()
                self._outage.over()
                pause_s = self._beat_s
            except Exception as error:
                self._outage.met(error, process_id=self._process_id)
                # At once, the first time: a sweep that has long suspected a process which was
                # halted would release the holds of the calls that it serves again.
                pause_s = 0.0 if held else _RETRY_S
            await asyncio.sleep(pause_s)

    async def _beat(self) -> None:
        if self._connection is None:
            connection = await self._pool.acquire(timeout=_ANSWER_S)
            try:
                await leases.take(connection, self._process_id)
            except BaseException:
                await self._hand_back(connection)
                raise
            self._connection = connection
            return
        try:
            async with asyncio.timeout(_ANSWER_S):
                await leases.confirm(self._connection, self._process_id)
        except Exception:
            connection, self._connection = self._connection, None
            await self._hand_back(connection)
            raise

    async def _hand_back(self, connection: ledger.Connection) -> None:
        """The session ends, so that a lock it may hold ends with it."""
        if not ledger.is_lost(connection):
            connection.terminate()
        with contextlib.suppress(*DRIVER_AWAY):
            await self._pool.release(connection, timeout=1)
