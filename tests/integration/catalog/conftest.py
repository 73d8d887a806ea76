"""An engine on the test's own database, and a provider to begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store.accounts import Account, Role
from broker.store.database import create_engine
from tests.integration.catalog.offers import open_account


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine that is closed before the database is dropped."""
    engine = create_engine(database_url, connections_max=4)
    yield engine
    await engine.dispose()


@pytest.fixture
async def acme(engine: AsyncEngine) -> Account:
    """A provider."""
    return await open_account(engine, Role.PROVIDER, "acme")
