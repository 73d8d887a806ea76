"""One clock for a broker and its database, which a test tells the time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.integration.api.conftest import SmallBroker
from tests.integration.money import clock

Tell = Callable[[datetime], Awaitable[None]]


@pytest.fixture
async def tell(
    broker: SmallBroker, database_url: str, database_office: asyncpg.Connection
) -> AsyncIterator[Tell]:
    """Let it be a moment, for all that the test does from then on."""
    connection = await asyncpg.connect(database_url)
    await clock.install(connection)
    await clock.follow(database_office, urlsplit(database_url).path.lstrip("/"))
    await broker.engine.dispose()  # who is connected already goes by the old one

    hands = asyncio.Lock()

    async def tell(moment: datetime) -> None:
        broker.clock = lambda: moment
        async with hands:
            await clock.set_to(connection, moment)

    yield tell
    await connection.close()
