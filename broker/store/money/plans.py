"""Plans of the broker's take, only ever added to, and what providers have sold by the hour."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.takes import Plan, Takes, Tier, has_tiers, month_of, takes_at
from broker.store.tables import table

commission_plans = table(
    "commission_plans",
    """
    id uuid, provider_id uuid, domain text, tiers jsonb, effective_from timestamptz,
    reason text, author text, created_at timestamptz
    """,
)

_LATE: Final = timedelta(minutes=31)
"""A settlement is dated half an hour before its commit at the earliest."""
_CALL_LASTS: Final = timedelta(hours=3)
"""A call is settled within so long of its admission, but for one kept back by an outage."""

# A call's id begins with the time of its admission, so the primary key finds the newest lines.
_COUNT = """
INSERT INTO provider_volumes (hour, provider_id, charge_nanos)
SELECT date_trunc('hour', l.settled_at, 'UTC'), a.owner_id, sum(l.charge_nanos)
  FROM settlement_lines l JOIN ledger_accounts a ON a.id = l.payee_id
 WHERE l.settled_at >= :since AND l.call_id >= :first AND a.owner_id IS NOT NULL
 GROUP BY 1, 2
ON CONFLICT (hour, provider_id) DO UPDATE SET charge_nanos = excluded.charge_nanos
"""
_CLAIM = "SELECT counted_before FROM volume_progress FOR UPDATE"
_PROGRESS = """
INSERT INTO volume_progress (counted_before) VALUES (:before)
    ON CONFLICT (only_row) DO UPDATE SET counted_before = excluded.counted_before
"""
_SALES = """
SELECT provider_id, sum(charge_nanos)::bigint AS nanos FROM provider_volumes
 WHERE hour >= :month GROUP BY provider_id
"""


async def add(connection: AsyncConnection, plan: Plan) -> None:
    """Write a plan down."""
    await connection.execute(
        insert(commission_plans).values(
            id=plan.id,
            provider_id=plan.provider_id,
            domain=plan.domain,
            tiers=[[each.from_nanos, each.take_bps] for each in plan.tiers],
            effective_from=plan.valid_from,
            reason=plan.reason,
            author=plan.author,
            created_at=plan.created_at,
        )
    )


async def list_plans(connection: AsyncConnection) -> list[Plan]:
    """Return all plans there ever were, the last written first."""
    query = select(commission_plans).order_by(
        commission_plans.c.created_at.desc(), commission_plans.c.id.desc()
    )
    return [_plan(row) for row in await connection.execute(query)]


async def load_takes(connection: AsyncConnection, now: datetime) -> Takes:
    """Return what the broker takes at `now`."""
    plans = await list_plans(connection)
    tiered = has_tiers(plans)
    sales = await sales_of_month(connection, now) if tiered else {}
    return takes_at(plans, now, sales)


async def sales_of_month(connection: AsyncConnection, now: datetime) -> Mapping[UUID, int]:
    """Return the nano-dollars that each provider has sold for in the month, as last counted."""
    rows = await connection.execute(text(_SALES), {"month": month_of(now)})
    return {row.provider_id: row.nanos for row in rows}


async def count_sales(connection: AsyncConnection, now: datetime, *, whole: bool = False) -> None:
    """Count the hours anew into which something may have been dated since; `whole`: the month."""
    counted_before: datetime | None = await connection.scalar(text(_CLAIM))
    month = month_of(now)
    if whole or counted_before is None or counted_before < month:
        since, first = month, month - timedelta(days=1)
    else:
        since, first = counted_before, counted_before - _CALL_LASTS
    await connection.execute(text(_COUNT), {"since": since, "first": id_at(first)})
    before = (now - _LATE).replace(minute=0, second=0, microsecond=0)
    await connection.execute(text(_PROGRESS), {"before": before})


def id_at(moment: datetime) -> UUID:
    """Return the least UUIDv7 of a moment: ids made later are greater."""
    return UUID(int=max(int(moment.timestamp() * 1_000), 0) << 80)


def _plan(row: Row[Any]) -> Plan:
    return Plan(
        id=row.id,
        provider_id=row.provider_id,
        domain=row.domain,
        tiers=tuple(Tier(from_nanos, take_bps) for from_nanos, take_bps in row.tiers),
        valid_from=row.effective_from,
        reason=row.reason,
        author=row.author,
        created_at=row.created_at,
    )
