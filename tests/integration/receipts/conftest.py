"""A broker for each module of tests, a consumer with money, and a provider whose agent signs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
import redis.asyncio

from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.valkey import EmbeddedValkey
from broker.store.access.accounts import Role
from tests.conftest import fresh_database
from tests.integration.gateway.house import Consumer, House, open_house
from tests.integration.receipts.workshop import Workshop, open_workshop


@pytest.fixture(scope="module")
async def house(
    postgres_server: EmbeddedPostgres,
    valkey_server: EmbeddedValkey,
    migrated_template: str,
    database_office: asyncpg.Connection,
) -> AsyncIterator[House]:
    """A broker with an empty market; when it has stopped, every invariant view must be empty."""
    client = redis.asyncio.from_url(valkey_server.url)
    await client.flushall()
    await client.aclose()
    async with (
        fresh_database(postgres_server.url, migrated_template, database_office) as url,
        open_house(url, valkey_server.url) as house,
    ):
        yield house


@pytest.fixture(scope="module")
async def shop(house: House) -> Consumer:
    """A consumer with five dollars."""
    return await house.consumer("shop")


@pytest.fixture(scope="module")
async def workshop(
    house: House, shop: Consumer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Workshop]:
    """The provider `acme`, whose agent fronts its server and signs receipts."""
    key = await house.key("acme", Role.PROVIDER)
    folder = tmp_path_factory.mktemp("keys")
    async with open_workshop(house, key, folder / "receipts.pem") as workshop:
        yield workshop
