"""A lane to the books whose process is halted in the midst of a statement, or that has no session
to send one in."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Sequence
from typing import cast

import asyncpg
import pytest

from broker.flows.books.lane import Lane
from broker.store.ledger import Connection

LIMIT_S = 0.2
HALTED_S = 0.5


class Session:
    """As much of a connection as a lane looks at."""

    closed = False

    def __init__(self, refusal: Exception | None = None) -> None:
        self.refusal = refusal

    async def execute(self, text: str) -> None:
        """Take any settings, or none."""
        if self.refusal is not None:
            raise self.refusal

    def is_closed(self) -> bool:
        return self.closed

    def terminate(self) -> None:
        self.closed = True


class Sessions:
    """As much of a pool as a lane looks at."""

    def __init__(self, *refusals: Exception) -> None:
        """The first of them take no settings."""
        self.made: list[Session] = []
        self._refusals = [*refusals]

    @property
    def opened(self) -> int:
        return len(self.made)

    async def acquire(self) -> Session:
        self.made.append(Session(self._refusals.pop(0) if self._refusals else None))
        return self.made[-1]

    async def release(self, session: Session, timeout: float) -> None:
        """Forget it."""


class Sums(Lane[int, int]):
    """Doubles numbers, as a server does that answers while the process is halted, or never."""

    def __init__(self, sessions: Sessions, halted_s: float, *, answers: bool = True) -> None:
        super().__init__(cast(asyncpg.Pool, sessions), 10, LIMIT_S)
        self.halted_s = halted_s
        self.answers = answers
        self.told: list[int] = []
        self.away: list[Exception] = []

    async def _work(self) -> None:
        batch = [self.queue.popleft() for _ in range(len(self.queue))]
        try:
            await self._execute(batch)
        except (TimeoutError, asyncpg.PostgresError) as error:
            self.away.append(error)

    async def _send(self, connection: Connection, items: Sequence[int]) -> Sequence[int]:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            loop.call_soon(self._halt, there)
            await loop.sock_recv(here, 1)
        return [2 * each for each in items]

    def _halt(self, server: socket.socket) -> None:
        """Let nothing of this process run, while the answer comes."""
        time.sleep(self.halted_s)
        if self.answers:
            server.send(b".")

    def _deliver(self, items: Sequence[int], results: Sequence[int]) -> None:
        self.told += results

    async def _offend(self, item: int, error: Exception) -> None:
        raise error

    def _abandon(self) -> None:
        """Nobody waits."""


async def _sent(lane: Sums) -> None:
    lane.start()
    lane.put(21)
    await lane.close(30.0)


async def test_a_halted_process_takes_the_answer_that_came_meanwhile() -> None:
    sessions = Sessions()
    lane = Sums(sessions, HALTED_S)
    await _sent(lane)
    assert lane.told == [42]
    assert not lane.away
    assert sessions.opened == 1


@pytest.mark.parametrize("halted_s", [0.0, HALTED_S])
async def test_a_server_that_says_nothing_is_away_all_the_same(halted_s: float) -> None:
    lane = Sums(Sessions(), halted_s, answers=False)
    await _sent(lane)
    assert not lane.told
    assert len(lane.away) == 1


@pytest.mark.parametrize("refusal", [asyncpg.DataError, asyncpg.CannotConnectNowError])
async def test_a_session_that_takes_no_settings_is_left_and_no_row_is_blamed_for_it(
    refusal: type[asyncpg.PostgresError],
) -> None:
    sessions = Sessions(refusal("no such setting"))
    lane = Sums(sessions, 0.0)
    lane.start()
    lane.put(21)
    while not lane.away:  # noqa: ASYNC110 - only for as long as the lane takes
        await asyncio.sleep(0)
    assert sessions.made[0].closed
    lane.put(21)
    await lane.close(30.0)
    assert lane.told == [42]
    assert not lane.has_died
    assert sessions.opened == 2
