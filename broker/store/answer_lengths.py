"""Reads from the call log how long answers were."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy import Text, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.lengths import Batch
from broker.store.tables import calls

CALLS_MAX: Final = 5_000


async def read_lengths(connection: AsyncConnection, cursor: UUID) -> tuple[list[Batch], UUID]:
    """Return the lengths of whole answers after `cursor`, one of each call, and where to read on; a
    sample of CALLS_MAX where there are very many. Calls that are written late may be left out."""
    length = calls.c.answer_tokens_out
    newest = (
        select(calls.c.id, calls.c.domain, calls.c.endpoint_number, length)
        .where(calls.c.id > cursor, calls.c.status == 200, length.is_not(None))
        .order_by(calls.c.id.desc())
        .limit(CALLS_MAX)
        .subquery()
    )
    query = select(
        newest.c.domain,
        newest.c.endpoint_number,
        func.count().label("answers"),
        func.sum(newest.c.answer_tokens_out).label("tokens_out"),
        # There is no max() of UUIDs in every version of PostgreSQL.
        func.max(cast(newest.c.id, Text)).label("last"),
    ).group_by(newest.c.domain, newest.c.endpoint_number)
    rows = (await connection.execute(query)).all()
    batches = [
        Batch(each.domain, each.endpoint_number, each.answers, int(each.tokens_out))
        for each in rows
    ]
    return batches, max((UUID(each.last) for each in rows), default=cursor)
