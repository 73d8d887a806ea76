"""Reads the call log of a stretch of time, oldest first, piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store.money.plans import id_at
from broker.store.tables import calls

PIECE: Final = 5_000
_ID_EARLIER: Final = timedelta(minutes=1)
_COLUMNS: Final = (
    *(calls.c.id, calls.c.created_at, calls.c.account_id, calls.c.task, calls.c.model),
    *(calls.c.domain, calls.c.stream, calls.c.status, calls.c.code, calls.c.endpoint_number),
    *(calls.c.charge_nanos, calls.c.tokens_in, calls.c.tokens_out, calls.c.ttft_ms),
    *(calls.c.duration_ms, calls.c.story),
)


async def recorded(
    engine: AsyncEngine, since: datetime, until: datetime
) -> AsyncIterator[list[sa.Row[Any]]]:
    """Yield the calls from `since` on and before `until`, by id, in pieces; no transaction stays
    open between two of them."""
    last = id_at(since - _ID_EARLIER)
    while True:
        query = (
            sa.select(*_COLUMNS)
            .where(calls.c.id > last, calls.c.created_at >= since, calls.c.created_at < until)
            .order_by(calls.c.id)
            .limit(PIECE)
        )
        async with engine.connect() as connection:
            piece: list[sa.Row[Any]] = [*await connection.execute(query)]
        if piece:
            yield piece
        if len(piece) < PIECE:
            return
        last = piece[-1].id
