"""Budgets of keys: what a key may spend in a UTC day, a UTC month and in total, and what it has.

The statement that opens holds knows by itself which keys have budgets (`budgeted_keys`), so a
first budget works at once in every process, and neither a key nor a hold is told anything. A hold
counts in the periods in which its call was admitted, also when it is settled later. A key that once
had a budget is counted for ever; what its calls had cost before that is carried into the periods of
that moment, while those under way then are not counted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import NotFound, RequestMalformed

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
    not exist, RequestMalformed for an amount below zero or above all that fits the books.
    """
    limits = {
        "key": key_id,
        "day": budgets.day_nanos,
        "month": budgets.month_nanos,
        "total": budgets.total_nanos,
    }
    for limit in (budgets.day_nanos, budgets.month_nanos, budgets.total_nanos):
        if limit is not None and not 0 <= limit <= _LIMIT_NANOS_MAX:
            raise RequestMalformed("A budget is an amount of zero or more that fits the books.")
    changed = await connection.execute(text(_SET), limits)
    if not changed.rowcount:
        if budgets == _NO_BUDGETS:
            return
        begun = (await connection.execute(text(_BEGIN), limits)).one_or_none()
        if begun is None:
            raise NotFound("There is no such key.")
        if begun.is_first:
            await connection.execute(text(_CARRY), limits)
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
# Of two that begin at once, the second changes what the first began.
_BEGIN: Final = """
WITH next AS (
    UPDATE budget_generation SET generation = generation + 1
     WHERE EXISTS (SELECT FROM keys WHERE id = :key) RETURNING generation
)
INSERT INTO budgets (key_id, day_nanos, month_nanos, total_nanos, generation, created_at)
SELECT :key, :day, :month, :total, generation, now() FROM next
    ON CONFLICT (key_id) DO UPDATE
   SET (day_nanos, month_nanos, total_nanos) = (:day, :month, :total)
RETURNING xmax = 0 AS is_first
"""
# From the log of calls, which an index orders by account: rare, and it locks nothing that is hot.
_CARRY: Final = """
WITH spent AS MATERIALIZED (
    SELECT coalesce(sum(charge_nanos), 0)::bigint AS total_nanos,
           coalesce(sum(charge_nanos) FILTER (
               WHERE created_at >= date_trunc('month', now(), 'UTC')), 0)::bigint AS month_nanos,
           coalesce(sum(charge_nanos) FILTER (
               WHERE created_at >= date_trunc('day', now(), 'UTC')), 0)::bigint AS day_nanos
      FROM calls WHERE key_id = :key AND account_id = (SELECT account_id FROM keys WHERE id = :key)
)
INSERT INTO budget_periods
    (key_id, begins_at, kind, limit_nanos, excess_nanos, carried_nanos, spent_nanos)
SELECT :key, begins_at, kind, p.limit_nanos, greatest(nanos - p.limit_nanos, 0), nanos, nanos
  FROM spent CROSS JOIN LATERAL (VALUES
           ('day', date_trunc('day', now(), 'UTC'), CAST(:day AS bigint), day_nanos),
           ('month', date_trunc('month', now(), 'UTC'), :month, month_nanos),
           ('total', '-infinity'::timestamptz, :total, total_nanos)
       ) AS p(kind, begins_at, limit_nanos, nanos)
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
