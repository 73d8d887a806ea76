"""The batcher while PostgreSQL is away, and when an answer is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from broker.errors import Unavailable
from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.store import ledger
from broker.store.database import create_pool
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import (
    PROCESS,
    Standing,
    a_capture,
    a_hold,
    a_record,
    standing,
)
from tests.integration.ledger.waiting import until_blocked, until_idle
from tests.integration.ledger.way import Way
from tests.waiting import until


@pytest.fixture
async def way(database_url: str) -> AsyncIterator[Way]:
    async with Way(database_url) as way:
        yield way


@pytest.fixture
async def batcher(way: Way, take: UUID) -> AsyncIterator[LedgerBatcher]:
    pool = await create_pool(way.url)
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS))
    batcher.start()
    yield batcher
    await batcher.drain()
    await pool.close()


async def test_holds_are_refused_at_once_while_the_database_is_away_and_accepted_again_after(
    batcher: LedgerBatcher, way: Way, connection: asyncpg.Connection, consumer: UUID
) -> None:
    await batcher.hold(a_hold(consumer, 1_000))
    way.close()
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await asyncio.wait_for(batcher.hold(a_hold(consumer, 1_000)), timeout=5)
        assert caught.value.retry_after_s is not None
    way.open = True

    async def accepted() -> bool:
        try:
            await batcher.hold(a_hold(consumer, 1_000))
        except Unavailable:
            return False
        return True

    await until(accepted)

    async def only_what_was_told_is_held() -> bool:
        return await standing(connection, consumer) == Standing(FUNDS_NANOS, 2_000)

    await until(only_what_was_told_is_held)


async def test_a_settlement_waits_for_the_database_and_is_made_once(
    batcher: LedgerBatcher, way: Way, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    hold = a_hold(consumer, 100_000)
    await batcher.hold(hold)
    way.close()
    settling = batcher.settle(a_capture(hold, (provider, 10)))
    done, _ = await asyncio.wait([settling], timeout=0.5)
    assert not done
    way.open = True
    assert await settling
    assert (await standing(connection, provider)).posted_nanos == 9_000


async def test_a_settlement_whose_answer_was_lost_is_known_to_be_ours(
    batcher: LedgerBatcher, way: Way, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    first, hold = a_hold(consumer, 100_000), a_hold(consumer, 100_000)
    await batcher.hold(first)
    await batcher.hold(hold)
    assert await batcher.settle(a_capture(first, (provider, 10)))
    way.swallow_next_answer = True
    assert await batcher.settle(a_capture(hold, (provider, 10)))
    assert way.swallowed.is_set()
    assert (await standing(connection, provider)).posted_nanos == 18_000
    assert await connection.fetchval("SELECT count(*) FROM settlements") == 2


async def test_a_lost_answer_does_not_claim_what_another_settled(
    batcher: LedgerBatcher,
    way: Way,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    first, hold = a_hold(consumer, 100_000), a_hold(consumer, 100_000)
    await batcher.hold(first)
    await batcher.hold(hold)
    assert await batcher.settle(a_capture(first, (provider, 10)))
    await ledger.settle_batch(connection, [a_capture(hold)], take)
    way.swallow_next_answer = True
    assert not await batcher.settle(a_capture(hold, (provider, 10)))
    assert way.swallowed.is_set()
    assert (await standing(connection, provider)).posted_nanos == 9_000


async def test_a_hold_whose_answer_was_lost_is_refused_and_given_back(
    batcher: LedgerBatcher, way: Way, connection: asyncpg.Connection, consumer: UUID
) -> None:
    await batcher.hold(a_hold(consumer, 1_000))
    way.swallow_next_answer = True
    with pytest.raises(Unavailable):
        await batcher.hold(a_hold(consumer, 5_000))
    assert way.swallowed.is_set()

    async def given_back() -> bool:
        released = await connection.fetchval("SELECT sum(hold_nanos) FROM settlements")
        return released == 5_000 and (await standing(connection, consumer)).held_nanos == 1_000

    await until(given_back)


async def test_a_hold_that_commits_long_after_its_way_was_cut_keeps_no_money(
    batcher: LedgerBatcher,
    way: Way,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
) -> None:
    await batcher.hold(a_hold(consumer, 1_000))
    async with other.transaction():
        await other.execute("LOCK TABLE balances")
        asked = asyncio.create_task(batcher.hold(a_hold(consumer, 5_000)))
        await until_blocked(connection)
        way.close()
        with pytest.raises(Unavailable):
            await asked
        way.open = True
        settled = "SELECT count(*) FROM settlements WHERE hold_nanos = 5000"

        async def given_up() -> bool:
            return bool(await connection.fetchval(settled) == 1)

        await until(given_up)
    await until_idle(connection)
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 1_000)
    assert await connection.fetchval("SELECT count(*) FROM open_holds") == 1


async def test_where_nothing_can_be_settled_nothing_is_held_until_it_can(
    batcher: LedgerBatcher, connection: asyncpg.Connection, consumer: UUID, provider: UUID
) -> None:
    hold = a_hold(consumer, 100_000)
    await batcher.hold(hold)
    await connection.execute(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER no_room BEFORE INSERT ON calls FOR EACH ROW EXECUTE FUNCTION no_room()"
    )
    settling = batcher.settle(a_capture(hold, (provider, 10)))

    async def stuck() -> bool:
        return batcher.is_stuck

    await until(stuck)
    with pytest.raises(Unavailable) as refused:
        await batcher.hold(a_hold(consumer, 1_000))
    assert refused.value.retry_after_s is not None
    assert not settling.done()
    await connection.execute("DROP TRIGGER no_room ON calls")
    assert await settling
    await batcher.hold(a_hold(consumer, 1_000))
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS - 10_000, 1_000)


async def test_draining_without_a_database_ends_in_time_and_tells_the_callers(
    way: Way, take: UUID, consumer: UUID, provider: UUID
) -> None:
    pool = await create_pool(way.url)
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS))
    batcher.start()
    hold = a_hold(consumer, 1_000)
    await batcher.hold(hold)
    way.close()
    settling = batcher.settle(a_capture(hold))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await batcher.drain(timeout_s=0.3)
    with pytest.raises(Unavailable):
        await settling
    await pool.close()


async def test_draining_into_a_database_that_hangs_ends_in_time_whatever_waits(
    way: Way, take: UUID, consumer: UUID
) -> None:
    pool = await create_pool(way.url)
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS))
    batcher.start()
    hold = a_hold(consumer, 1_000)
    await batcher.hold(hold)
    assert await batcher.settle(a_capture(hold))
    hold, refused = a_hold(consumer, 1_000), a_hold(consumer, 1_000)
    await batcher.hold(hold)
    lost = replace(a_record(refused, 0), status=503, hold_nanos=0)
    batcher.record(lost)
    await asyncio.sleep(0.1)
    way.freeze()
    batcher.record(lost)
    asking = asyncio.create_task(batcher.hold(refused))
    settling = batcher.settle(a_capture(hold))
    await asyncio.sleep(0.1)
    async with asyncio.timeout(4):  # each for itself, they would take 6 s
        await batcher.drain(timeout_s=1.5)
    for each in (asking, settling):
        with pytest.raises(Unavailable):
            await each
    pool.terminate()
