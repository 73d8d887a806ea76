"""What was charged for each attempt of a call, as it is read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import endpoints, settlement_lines
from pricing.book import Rate


@dataclass(frozen=True, slots=True)
class ChargedAttempt:
    """What one attempt delivered and cost: `charge = take + earnings`."""

    call_id: UUID
    attempt: int
    endpoint_number: int
    tokens_in: int
    tokens_out: int
    rate: Rate
    price_version: int
    charge_nanos: int
    take_nanos: int
    earnings_nanos: int


async def find_lines(
    connection: AsyncConnection, call_ids: Collection[UUID]
) -> list[ChargedAttempt]:
    """Return the charge lines of these calls, by call and attempt."""
    lines = settlement_lines.c
    query = (
        select(settlement_lines, endpoints.c.number)
        .join(endpoints, endpoints.c.id == lines.endpoint_id)
        .where(lines.call_id.in_(list(call_ids)))
        .order_by(lines.call_id, lines.attempt)
    )
    return [
        ChargedAttempt(
            call_id=row.call_id,
            attempt=row.attempt,
            endpoint_number=row.number,
            tokens_in=row.tokens_in,
            tokens_out=row.tokens_out,
            rate=Rate(row.rate_in_micros, row.rate_out_micros, row.rate_call_nanos),
            price_version=row.price_version,
            charge_nanos=row.charge_nanos,
            take_nanos=row.take_nanos,
            earnings_nanos=row.earnings_nanos,
        )
        for row in await connection.execute(query)
    ]
