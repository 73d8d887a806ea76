"""Gives budgets back what is refunded, in those periods of the call that are not over yet.

Somebody who is refunded today for a call of today has spent nothing on it today; a call of last
month has been paid out of last month's budget, whatever goes back of it now. The whole has no end:
there a refund always counts.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection


async def counted_for(connection: AsyncConnection, call_id: UUID, held_at: datetime) -> str | None:
    """Return the key in whose budgets a call counts, None where it counts in none.

    What a key had spent before its first budget is carried into that, call by call unknown.
    """
    named = {"call": call_id, "held_at": held_at}
    found: str | None = await connection.scalar(sa.text(_COUNTED), named)
    return found


async def give_back(
    connection: AsyncConnection,
    call_id: UUID,
    held_at: datetime,
    amount_nanos: int,
    at: datetime,
) -> None:
    """Count `amount_nanos` of a call's charge as not spent, as of `at`; nothing where its key has
    no budgets. The row lock of the balance that paid must be held.
    """
    named = {"call": call_id, "held_at": held_at, "at": at}
    await connection.execute(sa.text(_LOCK), named)
    await connection.execute(sa.text(_GIVE), named | {"amount": amount_nanos})


_COUNTED: Final = """
SELECT key_id FROM budgeted_holds WHERE call_id = :call AND created_at = :held_at
"""
_DUE: Final = """
SELECT b.* FROM holds h CROSS JOIN budget_periods_of(h.created_at) p
  JOIN budget_periods_of(:at) q ON q.begins_at = p.begins_at AND q.kind = p.kind
  JOIN budget_periods b ON b.key_id = h.key_id AND b.begins_at = p.begins_at AND b.kind = p.kind
 WHERE h.call_id = :call AND h.created_at = :held_at
"""
_LOCK: Final = f"{_DUE} ORDER BY b.key_id, b.begins_at, b.kind FOR UPDATE OF b"
# A call that is not counted was settled before the first budget, and stands in what was carried.
_GIVE: Final = f"""
WITH due AS (
    SELECT d.*, EXISTS (
        SELECT FROM budgeted_holds WHERE call_id = :call AND created_at = :held_at) AS is_counted
      FROM ({_DUE}) d
), share AS (
    SELECT key_id, begins_at, kind,
           CASE WHEN is_counted THEN CAST(:amount AS bigint) ELSE 0 END AS refunded_nanos,
           CASE WHEN is_counted THEN 0 ELSE least(:amount, carried_nanos) END AS carried_nanos
      FROM due
)
UPDATE budget_periods b
   SET spent_nanos = b.spent_nanos - s.refunded_nanos - s.carried_nanos,
       refunded_nanos = b.refunded_nanos + s.refunded_nanos,
       carried_nanos = b.carried_nanos - s.carried_nanos,
       excess_nanos = least(b.excess_nanos, greatest(
           b.spent_nanos - s.refunded_nanos - s.carried_nanos + b.held_nanos - b.limit_nanos, 0))
  FROM share s WHERE b.key_id = s.key_id AND b.begins_at = s.begins_at AND b.kind = s.kind
"""  # noqa: S608 - of constants alone
