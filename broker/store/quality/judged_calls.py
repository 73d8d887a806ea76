"""Reads calls of which their consumers have said how good the answer was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.quality.evidence import evidence
from broker.store.tables import calls

CALLS_MAX: Final = 100_000
_EARLIER: Final = timedelta(days=30)
"""A call is so much older at most than what is said of it."""


@dataclass(frozen=True, slots=True)
class JudgedCall:
    """A call's story, who answered, and the last that was said of it."""

    story: bytes
    endpoint_number: int
    score: float


async def judged_calls(connection: AsyncConnection, since: datetime) -> list[JudgedCall]:
    """Return the newest CALLS_MAX calls to `auto` of which something was said since then."""
    said = (
        select(evidence.c.call_id, evidence.c.score)
        .ext(distinct_on(evidence.c.call_id))
        .where(evidence.c.source == "feedback", evidence.c.at >= since)
        .order_by(evidence.c.call_id, evidence.c.id.desc())
        .subquery()
    )
    query = (
        select(calls.c.story, calls.c.endpoint_number, said.c.score)
        .join(said, said.c.call_id == calls.c.id)
        .where(calls.c.created_at >= since - _EARLIER, calls.c.model == "auto")
        .order_by(calls.c.id.desc())
        .limit(CALLS_MAX)
    )
    rows = await connection.execute(query)
    return [JudgedCall(each.story, each.endpoint_number, each.score) for each in rows]
