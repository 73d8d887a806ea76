"""Reads from the call log how long answers were."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.quality.lengths import Batch
from broker.store.tables import calls

CALLS_MAX: Final = 1_000


async def read_lengths(connection: AsyncConnection, cursor: UUID) -> tuple[list[Batch], UUID]:
    """Return the lengths of whole answers after `cursor`, one of each call, and where to read on;
    of the newest CALLS_MAX calls where there are very many. Calls written late may be left out."""
    # Chosen among after they were limited, so that no more are read: the ledger is waited for.
    newest = (
        select(calls.c.id, calls.c.domain, calls.c.endpoint_number)
        .add_columns(calls.c.status, calls.c.answer_tokens_out)
        .where(calls.c.id > cursor)
        .order_by(calls.c.id.desc())
        .limit(CALLS_MAX)
        .cte("newest")
    )
    length = newest.c.answer_tokens_out
    last = select(newest.c.id).order_by(newest.c.id.desc()).limit(1).scalar_subquery()
    query = (
        select(
            newest.c.domain,
            newest.c.endpoint_number,
            func.count().label("answers"),
            func.sum(length).label("tokens_out"),
            last.label("last"),
        )
        .where(newest.c.status == 200, length.is_not(None))
        .group_by(newest.c.domain, newest.c.endpoint_number)
    )
    rows = (await connection.execute(query)).all()
    batches = [
        Batch(each.domain, each.endpoint_number, each.answers, int(each.tokens_out))
        for each in rows
    ]
    return batches, rows[0].last if rows else cursor
