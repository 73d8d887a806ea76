"""Reads of very many rows leave the database to others."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from broker.api.long_reads import ASKED_MAX, PLACES, LongReads
from broker.errors import TooManyCalls


class Library:
    """Counts who reads, until told that all have read enough."""

    def __init__(self, reads: LongReads) -> None:
        self.reads = reads
        self.inside = self.done = 0
        self.enough = asyncio.Event()

    async def visit(self, account: object) -> None:
        async with self.reads.place(account):  # type: ignore[arg-type]  # any name will do
            self.inside += 1
            await self.enough.wait()
            self.inside -= 1
            self.done += 1


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_account_reads_one_thing_at_a_time_and_no_more_than_a_few_wait() -> None:
    library, account = Library(LongReads()), uuid4()
    visits = [asyncio.create_task(library.visit(account)) for _ in range(ASKED_MAX)]
    await _settled()
    assert library.inside == 1
    with pytest.raises(TooManyCalls):
        await library.visit(account)
    library.enough.set()
    await asyncio.gather(*visits)
    assert library.done == ASKED_MAX
    await library.visit(account)


async def test_many_accounts_share_the_places_and_one_that_leaves_gives_its_own_up() -> None:
    library = Library(LongReads())
    visits = [asyncio.create_task(library.visit(uuid4())) for _ in range(PLACES + 1)]
    await _settled()
    assert library.inside == PLACES
    visits[0].cancel()
    await asyncio.wait([visits[0]])
    library.inside -= 1
    await _settled()
    assert library.inside == PLACES
    library.enough.set()
    await asyncio.gather(*visits[1:])


async def test_who_waits_too_long_for_a_place_is_told_to_ask_again() -> None:
    library, account = Library(LongReads(waits_s=0.01)), uuid4()
    visits = [asyncio.create_task(library.visit(uuid4())) for _ in range(PLACES)]
    await _settled()
    for _ in range(2):  # and leaves nothing behind
        with pytest.raises(TooManyCalls) as told:
            await library.visit(account)
        assert told.value.retry_after_s
    library.enough.set()
    await asyncio.gather(*visits)
    await library.visit(account)
