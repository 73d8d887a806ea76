"""The public keys that prove a deployment's receipts: each is kept, and in force for a time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import NotFound
from broker.store.tables import deployments, table

receipt_keys = table(
    "receipt_keys",
    """
    id text, deployment_id uuid, public_key bytea, claim_json text, signature bytea,
    endorsed_by text, endorsement bytea, registered_at timestamptz, retired_at timestamptz
    """,
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The public half of a deployment's key, and when it was in force."""

    id: str
    deployment_id: UUID
    public_key: bytes
    claim_json: str
    signature: bytes
    endorsed_by: str | None
    endorsement: bytes | None
    registered_at: datetime
    retired_at: datetime | None = None


async def of_provider(connection: AsyncConnection, provider_id: UUID) -> dict[str, PublicKey]:
    """Return all keys that a provider's deployments ever had, by id."""
    query = _keys().join(deployments, deployments.c.id == receipt_keys.c.deployment_id)
    rows = await connection.execute(query.where(deployments.c.provider_id == provider_id))
    return {row["id"]: PublicKey(**row) for row in rows.mappings()}


async def of_deployments(
    connection: AsyncConnection, deployment_ids: Collection[UUID]
) -> list[PublicKey]:
    """Return all keys that these deployments ever had, oldest first."""
    query = _keys().where(receipt_keys.c.deployment_id.in_(list(deployment_ids)))
    rows = await connection.execute(query.order_by(receipt_keys.c.registered_at))
    return [PublicKey(**row) for row in rows.mappings()]


async def lock_all_of(connection: AsyncConnection, deployment_ids: Collection[UUID]) -> None:
    """Have the receipts of these deployments kept one batch after the other."""
    query = select(receipt_keys.c.id).where(receipt_keys.c.deployment_id.in_(list(deployment_ids)))
    await connection.execute(query.order_by(receipt_keys.c.id).with_for_update(key_share=True))


async def find(connection: AsyncConnection, key_id: str) -> PublicKey | None:
    """Return a key, whosever it is."""
    return await _one(connection, _keys().where(receipt_keys.c.id == key_id))


async def lock_in_force(
    connection: AsyncConnection, deployment_id: UUID, provider_id: UUID
) -> PublicKey | None:
    """Return the key that a provider's deployment signs with now, locked for a new one.

    Raises NotFound for a deployment that is not, or is another's.
    """
    mine = (deployments.c.id == deployment_id, deployments.c.provider_id == provider_id)
    query = select(deployments.c.id).where(*mine).with_for_update(key_share=True)
    if (await connection.execute(query)).one_or_none() is None:
        raise NotFound("There is no such deployment.")
    in_force = (receipt_keys.c.deployment_id == deployment_id, receipt_keys.c.retired_at.is_(None))
    return await _one(connection, _keys().where(*in_force))


async def insert_one(connection: AsyncConnection, key: PublicKey) -> None:
    """Write a key that is in force from `registered_at` on."""
    values = {name: getattr(key, name) for name in PublicKey.__slots__}
    await connection.execute(insert(receipt_keys).values(values))


async def retire(connection: AsyncConnection, key_id: str, at: datetime) -> None:
    """End the time in which a key is the one to sign with."""
    mine = receipt_keys.c.id == key_id
    await connection.execute(update(receipt_keys).where(mine).values(retired_at=at))


def _keys() -> Select[Any]:
    return select(*receipt_keys.c)


async def _one(connection: AsyncConnection, query: Select[Any]) -> PublicKey | None:
    row = (await connection.execute(query)).mappings().one_or_none()
    return None if row is None else PublicKey(**row)
