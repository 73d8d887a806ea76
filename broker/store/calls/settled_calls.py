"""What a settled call is told of as an event: to each side what concerns it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.access.accounts import Role
from pricing.money import format_usd

_LINES = """
SELECT l.call_id, e.provider_id, p.name || '/' || e.name AS endpoint, l.tokens_in, l.tokens_out,
       l.charge_nanos, l.take_nanos, l.earnings_nanos
  FROM settlement_lines l
  JOIN endpoints e ON e.id = l.endpoint_id
  JOIN accounts p ON p.id = e.provider_id
 WHERE l.call_id = ANY(:calls) AND l.settled_at = ANY(:times)
 ORDER BY l.call_id, l.attempt
"""


async def payloads(
    connection: AsyncConnection,
    calls: Sequence[tuple[UUID, datetime]],
    account_id: UUID,
    role: Role,
) -> dict[UUID, dict[str, Any]]:
    """Return what an account is told of calls, given with their times of settlement.

    A consumer sees charges, a provider its own lines with what it earns, an operator all.
    """
    wanted = {"calls": [each[0] for each in calls], "times": [each[1] for each in calls]}
    lines: dict[UUID, list[Any]] = defaultdict(list)
    for row in await connection.execute(text(_LINES), wanted):
        if role is not Role.PROVIDER or row.provider_id == account_id:
            lines[row.call_id].append(row)
    return {call: _payload(call, rows, role) for call, rows in lines.items()}


def _payload(call_id: UUID, rows: Sequence[Any], role: Role) -> dict[str, Any]:
    amounts = {"charge_usd": sum(row.charge_nanos for row in rows)}
    if role is not Role.CONSUMER:
        amounts["take_usd"] = sum(row.take_nanos for row in rows)
        amounts["earnings_usd"] = sum(row.earnings_nanos for row in rows)
    served = [
        {
            "endpoint": row.endpoint,
            "tokens_in": row.tokens_in,
            "tokens_out": row.tokens_out,
            "charge_usd": format_usd(row.charge_nanos),
        }
        for row in rows
    ]
    return {
        "call": str(call_id),
        **{name: format_usd(nanos) for name, nanos in amounts.items()},
        "served": served,
    }
