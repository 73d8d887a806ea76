"""A till on a fresh database; at the end the books are replayed too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.books.check import check
from broker.store.access.accounts import Account
from tests.integration.ledger.entries import ledger_connection
from tests.integration.payouts.till import Till


@pytest.fixture
async def driver(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await ledger_connection(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def till(engine: AsyncEngine, driver: asyncpg.Connection) -> AsyncIterator[Till]:
    yield await Till.open(engine, driver)
    assert await check(engine, replay=True) == []


@pytest.fixture
async def acme(till: Till) -> Account:
    return await till.provider("acme")


@pytest.fixture
async def globex(till: Till) -> Account:
    return await till.provider("globex")
