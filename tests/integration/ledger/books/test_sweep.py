"""Leases, orphans and the sweep."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest
from msgspec.structs import replace

from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.flows.books.sweep import SPARE_S, release_orphans, sweep_expired
from broker.flows.process.lease import Lease
from broker.store import leases, ledger
from broker.store.database import create_pool
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import PROCESS, Standing, a_capture, a_hold, standing
from tests.integration.ledger.way import Way
from tests.waiting import until


@pytest.fixture
async def way(database_url: str) -> AsyncIterator[Way]:
    async with Way(database_url) as way:
        yield way


@pytest.fixture
async def lease(way: Way) -> AsyncIterator[Lease]:
    pool = await create_pool(way.url)
    lease = Lease(pool, beat_s=0.1)
    await lease.acquire()
    yield lease
    await lease.release()
    pool.terminate()


async def test_an_expired_hold_is_given_back(
    pool: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID
) -> None:
    await ledger.hold_batch(connection, [a_hold(consumer, 1_000, lasts_s=-1)], PROCESS)
    assert await sweep_expired(pool, datetime.now(UTC)) == 1
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 0)


async def test_a_hold_of_a_broker_whose_clock_is_behind_lasts_as_long_as_any_other(
    pool: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID
) -> None:
    now = datetime.now(UTC)
    late = a_hold(consumer, 1_000, lasts_s=60, at=now - timedelta(hours=1))
    early = a_hold(consumer, 500, lasts_s=60, at=now + timedelta(hours=1))
    await ledger.hold_batch(connection, [late, early], PROCESS)
    assert await sweep_expired(pool, now + timedelta(seconds=50)) == 0
    assert await sweep_expired(pool, now + timedelta(seconds=120)) == 1
    assert await sweep_expired(pool, now + timedelta(hours=2)) == 1
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 0)


async def test_a_settlement_kept_back_longer_than_its_hold_lasts_is_made_all_the_same(
    lease: Lease,
    way: Way,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    cut_off = await create_pool(way.url)
    batcher = LedgerBatcher(cut_off, take, HoldTerms(lease.process_id))
    batcher.start()
    hold = a_hold(consumer, 100_000, lasts_s=-1_000)
    await batcher.hold(hold)
    way.close()
    settling = batcher.settle(a_capture(hold, (provider, 10)))

    async def suspected() -> bool:
        assert await sweep_expired(pool, datetime.now(UTC)) == 0
        await release_orphans(pool, grace_s=3_600)
        return bool(await connection.fetchval("SELECT count(suspected_at) FROM broker_processes"))

    await until(suspected)
    # The lease looks old at first when the database is back, and fresh once it is taken again.
    await connection.execute("UPDATE broker_processes SET leased_at = now() - interval '1 hour'")
    way.open = True
    while not settling.done():
        assert await sweep_expired(pool, datetime.now(UTC)) == 0
    assert await settling
    assert await standing(connection, provider) == Standing(9_000, 0)
    await batcher.drain()
    await cut_off.close()


async def test_the_end_of_a_hold_that_is_told_late_falls_behind_no_seal(
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    kept = a_hold(consumer, 100_000, at=now - 3 * hour)
    left = a_hold(consumer, 1_000, lasts_s=-7_200, at=now - 3 * hour)
    await ledger.hold_batch(connection, [kept, left], PROCESS)
    closing = replace(a_capture(kept, (provider, 10)), settled_at=now - 2 * hour)
    await ledger.settle_batch(connection, [closing], take)
    assert await sweep_expired(pool, now - hour) == 1
    dates = await connection.fetch("SELECT settled_at FROM settlements")
    assert len(dates) == 2
    assert all(each["settled_at"] >= now - hour / 2 for each in dates)


async def test_a_hold_that_a_living_process_has_lost_expires_in_the_end(
    lease: Lease, pool: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID
) -> None:
    for amount, lasts_s in ((1_000, -SPARE_S - 60), (500, -SPARE_S + 60)):
        hold = a_hold(consumer, amount, lasts_s)
        await ledger.hold_batch(connection, [hold], lease.process_id)
    assert await sweep_expired(pool, datetime.now(UTC)) == 0, "the lease is young"
    await connection.execute(
        "UPDATE broker_processes SET leased_at = leased_at - make_interval(secs => $1)", SPARE_S
    )
    assert await sweep_expired(pool, datetime.now(UTC)) == 1
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 500)


async def test_a_lease_taken_again_is_a_young_one(
    lease: Lease, way: Way, pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await connection.execute("UPDATE broker_processes SET leased_at = now() - interval '1 hour'")
    assert await leases.find_lasting(connection, SPARE_S) == [lease.process_id]
    way.close()

    async def fallen_free() -> bool:
        return await leases.find_lasting(connection, SPARE_S) == []

    await until(fallen_free)
    way.open = True

    async def taken() -> bool:
        return await leases.find_lasting(connection, 0) == [lease.process_id]

    await until(taken)
    assert await leases.find_lasting(connection, SPARE_S) == []


async def test_holds_of_a_live_process_are_left_alone(
    lease: Lease, pool: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID
) -> None:
    await ledger.hold_batch(connection, [a_hold(consumer, 1_000)], lease.process_id)
    for _ in range(3):
        assert await release_orphans(pool, grace_s=0) == 0
    assert (await standing(connection, consumer)).held_nanos == 1_000


async def test_holds_of_a_dead_process_are_released_after_the_grace_and_others_are_not(
    lease: Lease, way: Way, pool: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID
) -> None:
    survivor = Lease(pool)
    await survivor.acquire()
    await ledger.hold_batch(connection, [a_hold(consumer, 1_000)], lease.process_id)
    await ledger.hold_batch(connection, [a_hold(consumer, 500)], survivor.process_id)
    way.close()  # as a kill would, it ends the session

    async def suspected() -> bool:
        assert await release_orphans(pool, grace_s=3_600) == 0
        return bool(await connection.fetchval("SELECT count(suspected_at) FROM broker_processes"))

    await until(suspected)
    assert await release_orphans(pool, grace_s=3_600) == 0, "the grace is not over"
    assert await release_orphans(pool, grace_s=0) == 1
    assert await standing(connection, consumer) == Standing(FUNDS_NANOS, 500)
    assert await connection.fetchval("SELECT kind FROM settlements") == "released"
    assert await connection.fetch("SELECT id FROM broker_processes") == [(survivor.process_id,)]
    await survivor.release()


async def test_a_lease_that_was_lost_is_taken_again_and_clears_the_suspicion(
    lease: Lease, way: Way, pool: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID
) -> None:
    await ledger.hold_batch(connection, [a_hold(consumer, 1_000)], lease.process_id)
    way.close()

    async def suspected() -> bool:
        await release_orphans(pool, grace_s=3_600)
        return bool(await connection.fetchval("SELECT count(suspected_at) FROM broker_processes"))

    await until(suspected)
    way.open = True

    async def cleared() -> bool:
        return not await connection.fetchval("SELECT count(suspected_at) FROM broker_processes")

    await until(cleared)
    await until(lambda: lease.is_held)  # it hears of it a moment after the books
    assert await release_orphans(pool, grace_s=0) == 0
    assert (await standing(connection, consumer)).held_nanos == 1_000


async def test_a_process_struck_off_while_it_was_cut_off_is_known_again(
    lease: Lease, way: Way, pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    way.close()

    async def struck_off() -> bool:
        await release_orphans(pool, grace_s=0)
        return not await connection.fetchval("SELECT count(*) FROM broker_processes")

    await until(struck_off)
    way.open = True

    async def known() -> bool:
        return bool(await connection.fetchval("SELECT count(*) FROM broker_processes"))

    await until(known)
    assert await release_orphans(pool, grace_s=0) == 0


async def test_a_process_that_stops_in_order_leaves_nothing(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    lease = Lease(pool)
    first = await lease.acquire()
    await lease.release()
    assert await connection.fetchval("SELECT count(*) FROM broker_processes") == 0
    second = Lease(pool)
    assert await second.acquire() > first, "numbers are never used again"
    await second.release()


async def test_a_settlement_after_its_hold_was_released_as_an_orphan_finds_it_gone(
    lease: Lease,
    way: Way,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    consumer: UUID,
    provider: UUID,
    take: UUID,
) -> None:
    hold = a_hold(consumer, 100_000)
    await ledger.hold_batch(connection, [hold], lease.process_id)
    way.close()

    async def released() -> bool:
        return await release_orphans(pool, grace_s=0) == 1

    await until(released)
    [result] = await ledger.settle_batch(connection, [a_capture(hold, (provider, 10))], take)
    assert not result.settled
    assert await standing(connection, provider) == Standing(0, 0)
