"""A lease whose session broke."""

from __future__ import annotations

import asyncio
from typing import cast

import asyncpg

from broker.flows.process.lease import Lease

PROCESS = 7


class Session:
    """As much of a connection as a lease looks at."""

    def __init__(self, *, lost: bool) -> None:
        self.lost = lost
        self.locks = 0

    async def fetchval(self, text: str) -> int:
        return PROCESS

    async def execute(self, text: str, *arguments: object) -> None:
        self.locks += "pg_advisory_lock" in text
        if self.lost and self.locks and "INSERT" in text:
            raise asyncpg.ConnectionDoesNotExistError("it was cut")

    def is_closed(self) -> bool:
        return self.lost

    def terminate(self) -> None:
        self.lost = True


class Sessions:
    """As much of a pool as a lease looks at: sessions that break, then those that do not."""

    def __init__(self) -> None:
        self.opened: list[Session] = []
        self.breaks = False

    async def acquire(self, timeout: float) -> Session:
        self.opened.append(Session(lost=self.breaks))
        return self.opened[-1]

    async def release(self, session: Session, timeout: float) -> None:
        """Forget it."""


async def _turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_process_whose_session_was_cut_takes_its_lease_again_before_it_rests() -> None:
    sessions = Sessions()
    lease = Lease(cast(asyncpg.Pool, sessions))
    await lease.acquire()
    sessions.opened[0].lost = True
    await _turns()
    assert lease.is_held
    assert [each.locks for each in sessions.opened] == [1, 1]
    await lease.release()


async def test_a_process_that_cannot_have_its_lease_rests_before_it_asks_again() -> None:
    sessions = Sessions()
    lease = Lease(cast(asyncpg.Pool, sessions))
    await lease.acquire()
    sessions.opened[0].lost = sessions.breaks = True
    await _turns()
    assert not lease.is_held
    assert len(sessions.opened) == 2
    await lease.release()
