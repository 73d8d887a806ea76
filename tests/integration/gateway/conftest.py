"""A broker for each module of tests: its database, its house, and a consumer with money."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
import redis.asyncio

from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from tests.conftest import fresh_database
from tests.integration.gateway.house import Consumer, House, open_house


@pytest.fixture(scope="module")
async def house(
    postgres_server: EmbeddedPostgres,
    valkey_server: EmbeddedValkey,
    migrated_template: str,
    database_office: asyncpg.Connection,
) -> AsyncIterator[House]:
    """A broker with an empty market; when it has stopped, every invariant view must be empty."""
    await _empty(valkey_server)
    async with (
        fresh_database(postgres_server.url, migrated_template, database_office) as url,
        open_house(url, valkey_server.url) as house,
    ):
        yield house
        await house.let_go()


@pytest.fixture(scope="module")
async def hasty_house(
    postgres_server: EmbeddedPostgres,
    valkey_server: EmbeddedValkey,
    migrated_template: str,
    database_office: asyncpg.Connection,
) -> AsyncIterator[House]:
    """The same, soon out of patience with providers, and with little room."""
    await _empty(valkey_server)
    async with (
        fresh_database(postgres_server.url, migrated_template, database_office) as url,
        open_house(
            url, valkey_server.url, first_byte_s=2.0, idle_s=0.8, passage_bytes=100_000
        ) as house,
    ):
        yield house
        await house.let_go()


async def _empty(valkey_server: EmbeddedValkey) -> None:
    client = redis.asyncio.from_url(valkey_server.url)
    await client.flushall()
    await client.aclose()


@pytest.fixture(scope="module")
async def shop(house: House) -> Consumer:
    """A consumer with five dollars."""
    return await house.consumer("shop")
