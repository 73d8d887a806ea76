"""How far each job has come that goes through records in the order of their times."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import table

progress = table("progress", "job text, done_before timestamptz")

_RANDOM_BITS = 80
"""Of a UUIDv7: what follows its 48 bits of Unix milliseconds."""


async def claim(connection: AsyncConnection, job: str, beginning: datetime) -> datetime:
    """Return up to when a job is done, and be the only one to go on until the transaction ends.

    A job that has never been done is done up to `beginning`.
    """
    fresh = insert(progress).values(job=job, done_before=beginning).on_conflict_do_nothing()
    await connection.execute(fresh)
    query = sa.select(progress.c.done_before).where(progress.c.job == job).with_for_update()
    found: datetime = (await connection.execute(query)).scalar_one()
    return found


async def move(connection: AsyncConnection, job: str, done_before: datetime) -> None:
    """Write how far a job has come; never back."""
    await connection.execute(
        sa.update(progress)
        .where(progress.c.job == job, progress.c.done_before < done_before)
        .values(done_before=done_before)
    )


async def done_before(connection: AsyncConnection, job: str) -> datetime | None:
    """Return how far a job has come, None when it has never been done."""
    query = sa.select(progress.c.done_before).where(progress.c.job == job)
    found: datetime | None = await connection.scalar(query)
    return found


def first_id(moment: datetime) -> UUID:
    """Return the least UUIDv7 of a moment, for reading a stretch of ids by their index."""
    return UUID(int=max(int(moment.timestamp() * 1_000), 0) << _RANDOM_BITS)
