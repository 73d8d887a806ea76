"""An office on a fresh database, with a consumer and a target."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store.access.accounts import Account, Role
from tests.integration.webhooks.office import Office
from tests.integration.webhooks.target import Target
from tests.integration.webhooks.target import target as a_target


@pytest.fixture
def office(engine: AsyncEngine) -> Office:
    return Office(engine)


@pytest.fixture
async def shop(office: Office) -> Account:
    return await office.account(Role.CONSUMER, "shop")


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with a_target() as made:
        yield made
