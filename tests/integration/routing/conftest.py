"""A provider that is examined, and who examines it."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.calls.ask_endpoint import Asker
from broker.flows.quality.examine import Examiner, Hall
from broker.flows.quality.mark_answers import Marker
from broker.store.access.accounts import Account, Role
from broker.store.market.listed import Listed
from broker.upstream.addresses import AddressPolicy
from broker.upstream.client import UpstreamClient
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.catalog.offers import SEALER, open_account
from tests.integration.routing.hall import TOKENS


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(Script(models=("tiny-law",), output_tokens=TOKENS)) as provider:
        yield provider


@pytest.fixture
async def acme(engine: AsyncEngine) -> Account:
    return await open_account(engine, Role.PROVIDER, "acme")


@pytest.fixture
async def hall(engine: AsyncEngine) -> AsyncIterator[Hall]:
    policy = AddressPolicy((ipaddress.ip_network("127.0.0.0/8"),))
    upstream = UpstreamClient(policy)
    yield Hall(engine, Marker(Asker(upstream)), lambda: datetime.now(UTC), Listed(SEALER))
    await upstream.aclose()


@pytest.fixture
def examiner(hall: Hall) -> Examiner:
    return Examiner(hall)
