"""Batches of payouts: those that were made together and go out by one way."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.payout import Method
from broker.errors import NotFound
from broker.store.tables import table

CURRENCY: Final = "USD"
_LIST_MAX: Final = 1_000

batches = table(
    "payout_batches",
    """
    id uuid, method text, currency text, author text, created_at timestamptz,
    exported_at timestamptz
    """,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Payouts that go out together by one way."""

    id: UUID
    method: Method
    author: str
    created_at: datetime
    exported_at: datetime | None = None


async def open_batch(connection: AsyncConnection, batch: Batch) -> None:
    """Write a batch."""
    await connection.execute(
        insert(batches).values(
            id=batch.id,
            method=batch.method.value,
            currency=CURRENCY,
            author=batch.author,
            created_at=batch.created_at,
        )
    )


async def lock_batch(connection: AsyncConnection, batch_id: UUID) -> Batch:
    """Lock a batch and return it. Raises NotFound."""
    query = select(batches).where(batches.c.id == batch_id).with_for_update()
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("There is no such batch of payouts.")
    return _batch(row)


async def lock_unexported(connection: AsyncConnection, batch_id: UUID) -> bool:
    """Lock a batch that more payouts are to go into; False where there is none, or its file has
    been written already, which is to stay the same."""
    query = select(batches.c.id).where(batches.c.id == batch_id, batches.c.exported_at.is_(None))
    return await connection.scalar(query.with_for_update()) is not None


async def mark_exported(connection: AsyncConnection, batch_id: UUID, now: datetime) -> None:
    """Note when a batch's file was first written."""
    await connection.execute(
        update(batches).where(batches.c.id == batch_id).values(exported_at=now)
    )


async def list_batches(
    connection: AsyncConnection, *, before: UUID | None = None, limit: int = 100
) -> list[Batch]:
    """Return up to `limit` (at most 1,000) batches, newest first, before the id `before`."""
    query = select(batches).order_by(batches.c.id.desc()).limit(min(limit, _LIST_MAX))
    if before is not None:
        query = query.where(batches.c.id < before)
    return [_batch(row) for row in await connection.execute(query)]


def _batch(row: Row[Any]) -> Batch:
    return Batch(row.id, Method(row.method), row.author, row.created_at, row.exported_at)
