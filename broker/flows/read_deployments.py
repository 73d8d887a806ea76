"""Reads deployments and how far they have come: a provider its own, an operator all."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.authenticate import Caller
from broker.store import deployments
from broker.store.accounts import Role
from broker.store.deployments import DeploymentRecord


async def read_deployments(engine: AsyncEngine, caller: Caller) -> list[DeploymentRecord]:
    """Return deployments, oldest first, without their credentials."""
    provider_id = None if caller.role is Role.OPERATOR else caller.account_id
    async with engine.connect() as connection:
        return await deployments.list_deployments(connection, provider_id=provider_id)
