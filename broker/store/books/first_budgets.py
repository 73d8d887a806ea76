"""A key's first budget: it begins with what the key has spent in its periods, and with what it
holds.

Two moments would let money slip past it. What the key had spent is summed while calls go on, so the
long sum is of what has been settled for good, and only the newest is summed under the lock of the
balance that pays, which every hold and every settlement of the key takes. And a hold whose
statement began before all this, and waited for that lock, finds in the row that it has locked
(`balances.budget_generation`) that there is a budget which it is too early to see.

Locks are taken in the ledger's order, open holds before balances. Holds that were opened between
the two are looked for without waiting: if one of them is being settled, all is done again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import NotFound, Unavailable

_TRIES: Final = 40
_AGAIN_S: Final = 0.025
_LOCK_NOT_AVAILABLE: Final = "55P03"


@dataclass(frozen=True, slots=True)
class _Key:
    """Whose it is, and since when; `funds` is what pays for its calls, None for no consumer's."""

    id: str
    owner: UUID
    funds: UUID | None
    created_at: datetime


async def begin(connection: AsyncConnection, key_id: str, limits: dict[str, int | None]) -> bool:
    """Give a key its first budgets, by kind; False where it has got some in the meantime.

    Raises NotFound for a key that does not exist, Unavailable when its calls leave no moment.
    """
    row = (await connection.execute(sa.text(_KEY), {"key": key_id})).one_or_none()
    if row is None:
        raise NotFound("There is no such key.")
    key = _Key(row.id, row.account_id, row.funds, row.created_at)
    known = {"key": key.id, "owner": key.owner, "funds": key.funds, "since": key.created_at}
    early = (await connection.execute(sa.text(_SETTLED_FOR_GOOD), known)).one()
    for _ in range(_TRIES):
        try:
            async with connection.begin_nested():
                return await _begin(connection, known, early, limits)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
        await asyncio.sleep(_AGAIN_S)
    raise Unavailable("The key is too busy to get its first budget now.", retry_after_s=1.0)


async def _begin(
    connection: AsyncConnection,
    known: dict[str, Any],
    early: sa.Row[Any],
    limits: dict[str, int | None],
) -> bool:
    await connection.execute(sa.text(_LOCK_OPEN), known)
    await connection.execute(sa.text(_LOCK_FUNDS), known)
    open_calls = list((await connection.execute(sa.text(f"{_LOCK_OPEN} NOWAIT"), known)).scalars())
    begun = (await connection.execute(sa.text(_BEGIN), known | limits)).one()
    if not begun.is_first:
        return False
    late = (await connection.execute(sa.text(_SETTLED_SINCE), known | {"cut": early.cut})).one()
    carried = {
        f"{kind}_spent": getattr(early, kind) + getattr(late, kind) - getattr(late, f"{kind}_back")
        for kind in ("day", "month", "total")
    }
    await connection.execute(
        sa.text(_COUNT), {"key": known["key"], "calls": open_calls} | limits | carried
    )
    return True


_KEY: Final = """
SELECT k.id, k.account_id, k.created_at, a.id AS funds
  FROM keys k LEFT JOIN ledger_accounts a ON a.owner_id = k.account_id AND a.kind = 'funds'
 WHERE k.id = :key
"""
_OPEN: Final = """
SELECT o.call_id, o.created_at
  FROM open_holds o JOIN holds h ON h.call_id = o.call_id AND h.created_at = o.created_at
 WHERE o.ledger_account_id = :funds AND h.key_id = :key
"""
_LOCK_OPEN: Final = f"{_OPEN} ORDER BY o.call_id FOR UPDATE OF o"
_LOCK_FUNDS: Final = "SELECT FROM balances WHERE ledger_account_id = :funds FOR UPDATE"
# Of two that begin at once, the second changes what the first began.
_BEGIN: Final = """
WITH next AS (
    UPDATE budget_generation SET generation = generation + 1 RETURNING generation
), marked AS (
    UPDATE balances SET budget_generation = generation FROM next WHERE ledger_account_id = :funds
)
INSERT INTO budgets (key_id, day_nanos, month_nanos, total_nanos, generation, created_at)
SELECT :key, :day, :month, :total, generation, now() FROM next
    ON CONFLICT (key_id) DO UPDATE
   SET (day_nanos, month_nanos, total_nanos) = (:day, :month, :total)
RETURNING xmax = 0 AS is_first
"""
_SPENT: Final = """
SELECT coalesce(sum(s.charge_nanos), 0)::bigint AS total,
       coalesce(sum(s.charge_nanos) FILTER (
           WHERE s.held_at >= date_trunc('month', now(), 'UTC')), 0)::bigint AS month,
       coalesce(sum(s.charge_nanos) FILTER (
           WHERE s.held_at >= date_trunc('day', now(), 'UTC')), 0)::bigint AS day
"""
_SETTLED: Final = """
  FROM settlements s JOIN holds h ON h.call_id = s.call_id AND h.created_at = s.held_at
 WHERE s.ledger_account_id = :funds AND s.charge_nanos > 0 AND h.key_id = :key
"""
# What was admitted before `cut` is not open any more, and nothing is admitted so late. An index
# orders the settlements by account and time; none is dated before its hold.
_SETTLED_FOR_GOOD: Final = f"""
WITH cut AS MATERIALIZED (
    SELECT least(now() - interval '10 minutes', (SELECT min(created_at) FROM ({_OPEN}))) AS cut
), spent AS (
    {_SPENT} {_SETTLED} AND s.held_at < (SELECT cut FROM cut)
       AND s.settled_at >= CAST(:since AS timestamptz) - interval '1 hour'
)
SELECT cut, total, month, day FROM cut, spent
"""  # noqa: S608 - of constants alone
_SETTLED_SINCE: Final = f"""
WITH spent AS (
    {_SPENT} {_SETTLED} AND s.held_at >= :cut AND s.settled_at >= :cut
), back AS (
    SELECT coalesce(sum(n.amount_nanos), 0)::bigint AS total_back,
           coalesce(sum(n.amount_nanos) FILTER (
               WHERE h.created_at >= date_trunc('month', now(), 'UTC')), 0)::bigint AS month_back,
           coalesce(sum(n.amount_nanos) FILTER (
               WHERE h.created_at >= date_trunc('day', now(), 'UTC')), 0)::bigint AS day_back
      FROM credit_notes n JOIN holds h ON h.call_id = n.call_id
     WHERE n.account_id = :owner AND h.key_id = :key
)
SELECT * FROM spent, back
"""  # noqa: S608 - of constants alone
# Whoever waits for the locks over midnight has the periods of before, and holds in those after.
_COUNT: Final = """
WITH adopted AS (
    UPDATE open_holds SET budget_key_id = :key WHERE call_id = ANY(CAST(:calls AS uuid[]))
 RETURNING call_id, created_at, amount_nanos
), noted AS (
    INSERT INTO adopted_holds (call_id, key_id, created_at)
    SELECT call_id, :key, created_at FROM adopted
), held AS (
    SELECT p.kind, p.begins_at, sum(a.amount_nanos)::bigint AS held_nanos
      FROM adopted a CROSS JOIN budget_periods_of(a.created_at) p GROUP BY 1, 2
), carried AS (
    SELECT * FROM (VALUES
        ('day', date_trunc('day', now(), 'UTC'), CAST(:day_spent AS bigint)),
        ('month', date_trunc('month', now(), 'UTC'), :month_spent),
        ('total', '-infinity'::timestamptz, :total_spent)
    ) AS c(kind, begins_at, spent_nanos)
), counted AS (
    SELECT kind, begins_at, coalesce(spent_nanos, 0) AS spent_nanos,
           coalesce(held_nanos, 0) AS held_nanos
      FROM carried FULL JOIN held USING (kind, begins_at)
)
INSERT INTO budget_periods
    (key_id, begins_at, kind, limit_nanos, excess_nanos, carried_nanos, spent_nanos, held_nanos)
SELECT :key, begins_at, kind, limit_nanos, greatest(spent_nanos + held_nanos - limit_nanos, 0),
       spent_nanos, spent_nanos, held_nanos
  FROM counted
  JOIN (VALUES ('day', CAST(:day AS bigint)), ('month', :month), ('total', :total))
       AS l(kind, limit_nanos) USING (kind)
"""
