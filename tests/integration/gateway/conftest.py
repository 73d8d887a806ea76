"""A broker for each module of tests: its database, its house, and a consumer with money."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest
import redis.asyncio

from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from tests.conftest import broken_invariants, named
from tests.integration.gateway.house import Consumer, House, open_house, until

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def house(
    postgres_server: EmbeddedPostgres,
    valkey_server: EmbeddedValkey,
    migrated_template: str,
    database_office: asyncpg.Connection,
) -> AsyncIterator[House]:
    """A broker with an empty market; when it has stopped, every invariant view must be empty."""
    name = f"gateway_{next(_numbers)}"
    await database_office.execute(
        f"CREATE DATABASE {name} TEMPLATE {migrated_template} STRATEGY FILE_COPY"
    )
    client = redis.asyncio.from_url(valkey_server.url)
    await client.flushall()
    await client.aclose()
    url = named(postgres_server.url, name)
    try:
        async with open_house(url, valkey_server.url) as house:
            yield house
            await until(lambda: _nothing_held(house))
        alarms = await broken_invariants(url)
    finally:
        await database_office.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert not alarms, "\n".join(["the tests left broken invariants:", *alarms])


async def _nothing_held(house: House) -> bool:
    return await house.open_holds() == 0


@pytest.fixture(scope="module")
async def shop(house: House) -> Consumer:
    """A consumer with five dollars."""
    return await house.consumer("shop")
