"""Connections, accounts and a batcher on a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import asyncpg
import pytest

from broker.flows.books.batch import LedgerBatcher
from broker.flows.books.lane_ahead import HoldTerms
from broker.store import ledger
from broker.store.database import create_pool
from tests.integration.ledger.entries import PROCESS, ledger_connection, open_account

FUNDS_NANOS = 10_000_000


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await ledger_connection(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A second connection, for races."""
    connection = await ledger_connection(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def consumer(connection: asyncpg.Connection) -> UUID:
    return await open_account(connection, "consumer", FUNDS_NANOS)


@pytest.fixture
async def provider(connection: asyncpg.Connection) -> UUID:
    return await open_account(connection, "provider")


@pytest.fixture
async def take(connection: asyncpg.Connection) -> UUID:
    return await ledger.take_account(connection, PROCESS)


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await create_pool(database_url)
    yield pool
    await pool.close()


@pytest.fixture
async def batcher(pool: asyncpg.Pool, take: UUID) -> AsyncIterator[LedgerBatcher]:
    batcher = LedgerBatcher(pool, take, HoldTerms(PROCESS))
    batcher.start()
    yield batcher
    await batcher.drain()
