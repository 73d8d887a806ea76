"""Budgets of keys: what a key may spend in a UTC day, a UTC month and in total, and what it has.

The statement that opens holds knows by itself which keys have budgets (`budgeted_keys`), so a
first budget works at once in every process, and neither a key nor a hold is told anything. A hold
counts in the periods in which its call was admitted, also when it is settled later, and what is
refunded before such a period is over counts no more in it. A key that once had a budget is counted
for ever; how what came before that is counted, `first_budgets` says.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import RequestMalformed
from broker.store.books import first_budgets

_LIMIT_NANOS_MAX: Final = 2**63 - 1


class BudgetKind(enum.StrEnum):
    """How long a budget lasts."""

    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a key may spend in each UTC day, each UTC month and in total; None is no limit."""

    day_nanos: int | None = None
    month_nanos: int | None = None
    total_nanos: int | None = None


_NO_BUDGETS: Final = Budgets()


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """A budget in its present period; what is held belongs to calls under way."""

    kind: BudgetKind
    limit_nanos: int | None
    spent_nanos: int
    held_nanos: int


async def set_budgets(connection: AsyncConnection, key_id: str, budgets: Budgets) -> None:
    """Replace the budgets of a key, for every hold that begins after this transaction's commit.

    A limit below what is spent and held lets nothing more in. Raises NotFound for a key that does
    not exist, RequestMalformed for an amount below zero or above all that fits the books, and
    Unavailable as `first_budgets.begin` does.
    """
    kinds = {
        "day": budgets.day_nanos,
        "month": budgets.month_nanos,
        "total": budgets.total_nanos,
    }
    limits = {"key": key_id} | kinds
    for limit in kinds.values():
        if limit is not None and not 0 <= limit <= _LIMIT_NANOS_MAX:
            raise RequestMalformed("A budget is an amount of zero or more that fits the books.")
    changed = await connection.execute(text(_SET), limits)
    if not changed.rowcount:
        if budgets == _NO_BUDGETS:
            return
        if await first_budgets.begin(connection, key_id, kinds):
            return
    await connection.execute(text(_CHANGE), limits)


async def read_budgets(
    connection: AsyncConnection, key_id: str, now: datetime
) -> list[BudgetStanding]:
    """Return day, month and total as they stand at `now`; nothing for a key never counted."""
    rows = await connection.execute(text(_READ), {"key": key_id, "now": now})
    return [
        BudgetStanding(BudgetKind(row.kind), row.limit_nanos, row.spent_nanos, row.held_nanos)
        for row in rows
    ]


async def read_budgets_of(
    connection: AsyncConnection, account_id: UUID, now: datetime
) -> dict[str, list[BudgetStanding]]:
    """Return the same for all keys of an account that were ever counted, by the keys' ids."""
    standing: dict[str, list[BudgetStanding]] = {}
    for row in await connection.execute(text(_READ_ALL), {"account": account_id, "now": now}):
        told = BudgetStanding(
            BudgetKind(row.kind), row.limit_nanos, row.spent_nanos, row.held_nanos
        )
        standing.setdefault(row.key_id, []).append(told)
    return standing


_SET: Final = """
UPDATE budgets SET (day_nanos, month_nanos, total_nanos) = (:day, :month, :total)
 WHERE key_id = :key
"""
# Periods that ended within the hour too: a broker's clock may be late.
_CHANGE: Final = """
WITH locked AS MATERIALIZED (
    SELECT begins_at, kind FROM budget_periods
     WHERE key_id = :key AND CASE kind WHEN 'total' THEN true
               ELSE begins_at >= date_trunc(kind, now() - interval '1 hour', 'UTC') END
     ORDER BY begins_at, kind FOR UPDATE
)
UPDATE budget_periods p SET limit_nanos = n.limit_nanos,
       excess_nanos = greatest(p.spent_nanos + p.held_nanos - n.limit_nanos, 0)
  FROM locked l JOIN (VALUES ('day', CAST(:day AS bigint)), ('month', :month), ('total', :total))
           AS n(kind, limit_nanos) USING (kind)
 WHERE p.key_id = :key AND p.kind = l.kind AND p.begins_at = l.begins_at
"""
_STANDING: Final = """
SELECT b.key_id, n.kind, n.limit_nanos, coalesce(p.spent_nanos, 0) AS spent_nanos,
       coalesce(p.held_nanos, 0) AS held_nanos
  FROM budgets b
 CROSS JOIN LATERAL (VALUES
           (1, 'day', b.day_nanos, date_trunc('day', CAST(:now AS timestamptz), 'UTC')),
           (2, 'month', b.month_nanos, date_trunc('month', CAST(:now AS timestamptz), 'UTC')),
           (3, 'total', b.total_nanos, '-infinity')
       ) AS n(place, kind, limit_nanos, begins_at)
  LEFT JOIN budget_periods p
         ON p.key_id = b.key_id AND p.kind = n.kind AND p.begins_at = n.begins_at
"""
_READ: Final = f"{_STANDING} WHERE b.key_id = :key ORDER BY n.place"
_READ_ALL: Final = (
    f"{_STANDING} WHERE b.key_id IN (SELECT id FROM keys WHERE account_id = :account)"  # noqa: S608
    " ORDER BY b.key_id, n.place"
)
