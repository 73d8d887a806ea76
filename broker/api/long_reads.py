"""Lets few read at once what may be millions of rows, so that all others have the database too.

The connections of a process are few, and shared by the whole control plane, the price tick and the
readiness of the process: ten long reads at once would have them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from litestar.di import NamedDependency, Provide
from litestar.params import SkipValidation
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.api.parts import CallerRequest, GivenCaller, GivenParts
from broker.api.tables import AskedForm, Form, form_of
from broker.errors import TooManyCalls

PLACES: Final = 3
"""Of an account one; whoever else asks waits, and holds no connection meanwhile."""
ASKED_MAX: Final = 8
"""Long reads of one account, under way and waiting."""
WAITS_S: Final = 20.0
_AGAIN_S: Final = 10.0


@dataclass(slots=True)
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: int = 0


class LongReads:
    """The places there are in one process."""

    def __init__(self, waits_s: float = WAITS_S) -> None:
        self._places = asyncio.Semaphore(PLACES)
        self._turns: dict[UUID, _Turn] = {}
        self._waits_s = waits_s

    @asynccontextmanager
    async def place(self, account_id: UUID) -> AsyncIterator[None]:
        """Hold a place for the block. Raises TooManyCalls where too many of the account wait, or no
        place is free in time."""
        turn = self._turns.setdefault(account_id, _Turn())
        if turn.asked >= ASKED_MAX:
            raise _too_many()
        turn.asked += 1
        try:
            await self._take(turn)
            try:
                yield
            finally:
                self._places.release()
                turn.lock.release()
        finally:
            turn.asked -= 1
            if not turn.asked:
                del self._turns[account_id]

    async def _take(self, turn: _Turn) -> None:
        try:
            async with asyncio.timeout(self._waits_s):
                await turn.lock.acquire()
                try:
                    await self._places.acquire()
                except BaseException:
                    turn.lock.release()
                    raise
        except TimeoutError:
            raise _too_many() from None


def _too_many() -> TooManyCalls:
    return TooManyCalls(
        "Other reads of very many rows are under way; ask again when they are done.",
        retry_after_s=_AGAIN_S,
    )


GivenLongReads = NamedDependency[SkipValidation[LongReads]]


async def _engine(
    parts: GivenParts, long_reads: GivenLongReads, caller: GivenCaller
) -> AsyncGenerator[AsyncEngine]:
    async with long_reads.place(caller.account_id):
        yield parts.engine


async def _engine_of_table(
    parts: GivenParts,
    long_reads: GivenLongReads,
    request: CallerRequest,
    form: AskedForm = None,
) -> AsyncGenerator[AsyncEngine]:
    if form_of(request, form) is not Form.CSV:
        yield parts.engine
        return
    async with long_reads.place(request.user.account_id):
        yield parts.engine


LONG: Final = {"engine": Provide(_engine)}
"""For a handler whose read grows with what an account has ever done."""
LONG_AS_TABLE: Final = {"engine": Provide(_engine_of_table)}
"""For one that reads page by page, but all of it for a table."""
