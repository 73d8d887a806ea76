"""Reads deployments, how far they have come and whether they are there: a provider its own, an
operator all."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.catalog import ListingStatus
from broker.flows.access.authenticate import Caller
from broker.live.beats import Beats
from broker.live.connection import Valkey
from broker.live.sheet import MISSED_INTERVALS, BeatSheet
from broker.store.access.accounts import Role
from broker.store.market import deployments
from broker.store.market.deployments import DeploymentRecord
from broker.store.market.market_id import market_id


async def read_deployments(engine: AsyncEngine, caller: Caller) -> list[DeploymentRecord]:
    """Return deployments, oldest first, without their credentials."""
    provider_id = None if caller.role is Role.OPERATOR else caller.account_id
    async with engine.connect() as connection:
        return await deployments.list_deployments(connection, provider_id=provider_id)


async def read_heartbeats(engine: AsyncEngine, valkey_url: str) -> BeatSheet:
    """Return what all brokers of the market last heard of deployments; nothing of anybody, and
    unreachable, while Valkey is away."""
    async with engine.connect() as connection:
        valkey = Valkey(valkey_url, await market_id(connection))
    try:
        return await Beats(valkey).load()
    finally:
        await valkey.close()


def why_absent(record: DeploymentRecord, heard: BeatSheet) -> str | None:
    """Return why calls may pass a deployment by that is listed, None where there is no reason."""
    if record.deployment.status is not ListingStatus.LISTED or heard.reachable_since_ms is None:
        return None
    beat = heard.beat(record.deployment.id)
    if beat is None:
        return "no heartbeat yet"
    if heard.now_ms - beat.received_ms > MISSED_INTERVALS * beat.interval_ms:
        last = datetime.fromtimestamp(beat.received_ms / 1_000, UTC)
        return f"no heartbeat since {last:%Y-%m-%d %H:%M:%S} UTC"
    return None if beat.status == "ready" else f"its agent says that it is {beat.status}"
