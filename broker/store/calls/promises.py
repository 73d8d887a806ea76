"""Charged attempts at endpoints that had promised a latency, with what the call's story says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.calls.lost_calls import CALL_MAX
from broker.store.progress import first_id
from broker.store.tables import calls, offers, settlement_lines

_LATE_MAX: Final = timedelta(hours=2)
"""A call that was settled later than this after its end, as after an outage, is passed over."""


@dataclass(frozen=True, slots=True)
class Promised:
    """An attempt of a settled call, and what its endpoint had promised when the call began."""

    call_id: UUID
    attempt: int
    settled_at: datetime
    charge_nanos: int
    stream: bool
    promised_ttft_ms: int | None
    promised_latency_ms: int | None
    story: bytes


async def read_promised(
    connection: AsyncConnection, since: datetime, until: datetime, limit: int
) -> list[Promised]:
    """Return up to `limit` attempts settled from `since` on and before `until`, oldest first."""
    line, call, offer = settlement_lines.c, calls.c, offers.c
    promises = sa.or_(offer.promised_ttft_ms.is_not(None), offer.promised_latency_ms.is_not(None))
    begun = since - CALL_MAX - _LATE_MAX
    query = (
        sa.select(
            line.call_id,
            line.attempt,
            line.settled_at,
            line.charge_nanos,
            call.stream,
            offer.promised_ttft_ms,
            offer.promised_latency_ms,
            call.story,
        )
        .select_from(settlement_lines)
        .join(calls, call.id == line.call_id)
        .join(offers, sa.and_(offer.endpoint_id == line.endpoint_id, promises))
        .where(
            # The id narrows the lines by their index, the times by the partitions.
            line.call_id >= first_id(begun),
            line.settled_at >= since,
            line.settled_at < until,
            call.created_at >= begun,
            call.created_at >= offer.valid_from,
            sa.or_(offer.valid_to.is_(None), call.created_at < offer.valid_to),
        )
        .order_by(line.settled_at, line.call_id, line.attempt)
        .limit(limit)
    )
    return [Promised(*row) for row in await connection.execute(query)]
