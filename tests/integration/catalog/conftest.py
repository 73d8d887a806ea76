"""An engine on the test's own database, and a provider to begin with."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store.access.accounts import Account, Role
from tests.integration.catalog.offers import open_account


@pytest.fixture
async def acme(engine: AsyncEngine) -> Account:
    """A provider."""
    return await open_account(engine, Role.PROVIDER, "acme")
