"""Offers to vary in tests, and the accounts that make them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.catalog import ListingStatus
from broker.store.access import accounts
from broker.store.access.accounts import Account, Role
from broker.store.market import catalog, deployments, listing
from broker.store.market.catalog import Registration
from broker.store.sealing import Sealer
from provider_sdk.protocol import CallBand, DeploymentOffer, EndpointOffer, TokenBand

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
TAKE_BPS = 1_000
SEALER = Sealer("ab" * 32)
TOKEN_BAND = TokenBand(
    floor_in="0.10",
    list_in="0.20",
    ceiling_in="2.00",
    floor_out="0.30",
    list_out="0.60",
    ceiling_out="6.00",
)
CALL_BAND = CallBand(floor_call="0.0001", list_call="0.0002", ceiling_call="0.002")


def endpoint_offer(**changes: Any) -> EndpointOffer:
    """A chat endpoint, with changes."""
    plain = EndpointOffer(name="law", model="tiny-law", tasks=["chat"], price=TOKEN_BAND)
    return msgspec.structs.replace(plain, **changes)


def offer(**changes: Any) -> DeploymentOffer:
    """A deployment with one chat endpoint, with changes."""
    plain = DeploymentOffer(
        name="gpu1",
        url="http://gpu1.acme.example:8000",
        kind="openai",
        capacity=4,
        endpoints=[endpoint_offer()],
    )
    return msgspec.structs.replace(plain, **changes)


async def open_account(engine: AsyncEngine, role: Role, name: str) -> Account:
    """Open an account in a transaction of its own."""
    async with engine.begin() as connection:
        return await accounts.create(connection, role, name, NOW)


async def register(
    engine: AsyncEngine, provider: Account, offered: DeploymentOffer, now: datetime = NOW
) -> Registration:
    """Register in a transaction of its own."""
    async with engine.begin() as connection:
        return await catalog.register(connection, provider.id, offered, SEALER, (TAKE_BPS, now))


async def enlist(connection: AsyncConnection, registered: Registration) -> None:
    """List a deployment without asking it for a proof."""
    record = await deployments.find(connection, registered.deployment_id, SEALER)
    await listing.set_verdict(connection, record, ListingStatus.LISTED, [])
