"""Nothing is reset when a connection goes back to its pool: whoever borrows it leaves its session
as it was, and whoever changes its session ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.flows.books.sweep import open_orphaned_quotes, release_orphans, sweep_expired
from broker.flows.calls.forget_answer import forget_expired
from broker.flows.process.lease import Lease
from broker.store import late_indexes, ledger
from broker.store.access import claims
from broker.store.access.claims import Claim
from broker.store.access.idempotency import Place
from broker.store.database import create_pool
from tests.integration.ledger.entries import PROCESS, a_hold, open_key

_SESSION = """
SELECT pg_backend_pid() AS pid,
       (SELECT array_agg(name || '=' || setting ORDER BY name) FROM pg_settings) AS settings,
       ARRAY(SELECT locktype FROM pg_locks
              WHERE pid = pg_backend_pid() AND locktype = 'advisory') AS locks,
       ARRAY(SELECT pg_listening_channels()) AS channels,
       ARRAY(SELECT relname FROM pg_class WHERE relpersistence = 't') AS tables
"""


@pytest.fixture
async def only(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool of one connection, so that each has what the one before has left."""
    pool = await create_pool(database_url, connections_max=1)
    yield pool
    await pool.close()


async def session(pool: asyncpg.Pool) -> tuple[int, list[object]]:
    """The session that the next one gets: its process, and all that may have been changed in it."""
    async with pool.acquire() as connection:
        process, *state = tuple(await connection.fetchrow(_SESSION))
    return process, state


async def test_whoever_borrows_a_connection_leaves_its_session_as_it_was(
    only: asyncpg.Pool, connection: asyncpg.Connection, consumer: UUID
) -> None:
    async with only.acquire() as borrowed:
        await borrowed.execute("SET synchronous_commit = on")  # which it is not in tests
    before = await session(only)
    now = datetime.now(UTC)
    await sweep_expired(only, now)
    await release_orphans(only)
    await open_orphaned_quotes(only)
    await forget_expired(only, now)
    hold = a_hold(consumer, 5_000)
    owner = await connection.fetchval(
        "SELECT owner_id FROM ledger_accounts WHERE id = $1", consumer
    )
    day = timedelta(days=1)
    wanted = Claim(
        place=Place(owner, "order-1"),
        request_sha256=b"m" * 32,
        call_id=hold.call_id,
        process_id=PROCESS,
        created_at=now,
        free_at=now + day,
        expires_at=now + day,
    )
    async with only.acquire() as borrowed:
        await ledger.take_account(borrowed, PROCESS)
        await late_indexes.build(borrowed)
        assert await claims.claim(borrowed, wanted)
        assert await claims.stands(borrowed, wanted.place, hold.call_id)
        await claims.look(borrowed, wanted.place, now)
        await claims.take_over(borrowed, wanted, now)
        assert not await ledger.forestall(borrowed, [hold], 1.0)
        await claims.free(borrowed, wanted.place, hold.call_id)
    assert await session(only) == before


async def test_a_transaction_that_was_left_open_ends_when_its_connection_goes_back(
    only: asyncpg.Pool,
) -> None:
    before = await session(only)
    async with only.acquire() as borrowed:
        await borrowed.execute("BEGIN")
        await borrowed.execute("SET LOCAL enable_seqscan = off")
        await borrowed.execute("SELECT pg_advisory_xact_lock(1)")
    assert await session(only) == before


async def test_who_changes_its_session_ends_it(
    only: asyncpg.Pool,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    consumer: UUID,
    take: UUID,
) -> None:
    before, state = await session(only)
    lease = Lease(only)
    await lease.acquire()
    await lease.release()
    after, fresh = await session(only)
    assert after != before
    assert fresh == state
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS))
    batcher.start()
    hold = a_hold(consumer, 5_000, key_id=await open_key(connection, consumer))
    await batcher.hold(hold, 9.0)
    assert pool.get_size() > 0
    await batcher.drain()
    assert pool.get_size() == 0
