"""Tells of receipts: those of a call with what proves them, and whether a deployment signs any."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.catalog import ListingStatus
from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role
from broker.store.market import deployments
from broker.store.receipts import receipt_cases, receipt_keys
from broker.store.receipts.signed import SignedReceiptRow, signed_of_call

NONE_SIGNED: Final = "none: the agent does not front this server, or has no `receipts_key` for it"
"""The broker hears of neither."""


@dataclass(frozen=True, slots=True)
class Practice:
    """Whether a deployment's agent signs receipts, since when and with which key."""

    deployment: str
    key_id: str | None
    since: datetime | None
    cases_open: int

    @property
    def receipts(self) -> str:
        """The line of a statement."""
        return NONE_SIGNED if self.key_id is None else f"signed with the key {self.key_id}"


async def read_practices(connection: AsyncConnection, provider_id: UUID) -> list[Practice]:
    """Return what holds of each of a provider's deployments, oldest first, withdrawn ones not."""
    keys = await receipt_keys.of_provider(connection, provider_id)
    in_force = {key.deployment_id: key for key in keys.values() if key.retired_at is None}
    cases = await receipt_cases.count_open(connection, provider_id)
    practices = []
    for each in await deployments.list_deployments(connection, provider_id=provider_id):
        if each.deployment.status is ListingStatus.WITHDRAWN:
            continue
        key = in_force.get(each.deployment.id)
        practices.append(
            Practice(
                deployment=each.deployment.name,
                key_id=None if key is None else key.id,
                since=None if key is None else key.registered_at,
                cases_open=cases.get(each.deployment.id, 0),
            )
        )
    return practices


async def read_receipts(
    engine: AsyncEngine, caller: Caller, call_id: UUID
) -> list[SignedReceiptRow]:
    """Return a call's receipts by attempt: a provider's own, an operator's all."""
    provider_id = caller.account_id if caller.role is Role.PROVIDER else None
    async with engine.connect() as connection:
        return await signed_of_call(connection, call_id, provider_id)
