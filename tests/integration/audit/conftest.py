"""An engine on a fresh database, a bare connection of a superuser, and a sealer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from broker.store.sealing import Sealer


@pytest.fixture
async def superuser(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Who may do anything with the database, but has not the broker's key."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def sealer() -> Sealer:
    return Sealer("ab" * 32)
