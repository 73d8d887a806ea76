"""Which controller moves whose prices: choices as they were made, and who ended them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import table

pricing_choices = table(
    "pricing_choices",
    """
    id uuid, scope text, subject text, provider_id uuid, controller text, parameters jsonb,
    schedule jsonb, valid_from timestamptz, valid_to timestamptz, reason text, author text,
    created_at timestamptz, ended_at timestamptz, ended_by text
    """,
)

OPEN_MAX: Final = 1_000
"""So many choices may be open at once: the price tick reads them all each second."""


@dataclass(frozen=True, slots=True)
class StoredChoice:
    """A choice as it was made; `provider_id` is whose prices it moves, None for all in its scope.

    `schedule` is as it was told: {"steps": [...], "utc_offset_minutes": 0}.
    """

    id: UUID
    scope: str
    subject: str
    provider_id: UUID | None
    controller: str
    parameters: Mapping[str, float]
    schedule: Mapping[str, Any] | None
    valid_from: datetime
    valid_to: datetime | None
    reason: str
    author: str
    created_at: datetime


_CHOICE: Final = [pricing_choices.c[each.name] for each in fields(StoredChoice)]


async def add(connection: AsyncConnection, choice: StoredChoice) -> None:
    """Write a choice down."""
    await connection.execute(
        insert(pricing_choices).values(
            id=choice.id,
            scope=choice.scope,
            subject=choice.subject,
            provider_id=choice.provider_id,
            controller=choice.controller,
            parameters=dict(choice.parameters),
            schedule=None if choice.schedule is None else dict(choice.schedule),
            valid_from=choice.valid_from,
            valid_to=choice.valid_to,
            reason=choice.reason,
            author=choice.author,
            created_at=choice.created_at,
        )
    )


async def end(connection: AsyncConnection, choice_id: UUID, author: str, now: datetime) -> bool:
    """End a choice; False when it was ended or over before."""
    columns = pricing_choices.c
    ended = await connection.execute(
        update(pricing_choices)
        .where(
            columns.id == choice_id,
            columns.ended_at.is_(None),
            or_(columns.valid_to.is_(None), columns.valid_to > now),
        )
        .values(ended_at=now, ended_by=author)
    )
    return ended.rowcount == 1


async def find(connection: AsyncConnection, choice_id: UUID) -> StoredChoice | None:
    """Return a choice, also one that is over."""
    query = select(*_CHOICE).where(pricing_choices.c.id == choice_id)
    row = (await connection.execute(query)).mappings().first()
    return None if row is None else StoredChoice(**row)


async def list_open(connection: AsyncConnection, now: datetime) -> list[StoredChoice]:
    """Return what is in force or still to come, in the order of their beginnings."""
    columns = pricing_choices.c
    query = (
        select(*_CHOICE)
        .where(
            columns.ended_at.is_(None),
            or_(columns.valid_to.is_(None), columns.valid_to > now),
        )
        .order_by(columns.valid_from, columns.created_at, columns.id)
    )
    return [StoredChoice(**row) for row in (await connection.execute(query)).mappings()]
