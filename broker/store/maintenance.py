"""Keeps the tables in shape: partitions ahead of time, seals behind, and no expired rows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

import structlog
from asyncpg import LockNotAvailableError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.store.access import idempotency, sessions
from broker.store.away import driver_error, is_database_away
from broker.store.calls import quotes

_log = structlog.get_logger()

WAITS_MS: Final = 500
"""Calls wait so long at most for a partition that another day will do for: there are months."""

_MISSING = text("SELECT name FROM missing_partitions(:first, :months)")
_PATIENCE = text("SELECT set_config('lock_timeout', :waits, true)")
_MAKE = text("""
WITH made AS MATERIALIZED (
    SELECT make_partition(parent, other, key, name, low, high)
      FROM missing_partitions(:first, :months) WHERE name = :name
) SELECT refuse_truncation() FROM made
""")
_SETTLED = text("""
SELECT count(*) FROM (SELECT FROM settlements WHERE settled_at >= :since AND settled_at < :until
                       LIMIT :most) AS settled
""")
_PERIOD = text("""
INSERT INTO seal_periods (sealed_before, created_at, for_checks)
VALUES (:before, now(), :for_checks)
""")
_SEAL = text("""
INSERT INTO seals (ledger_account_id, sealed_before, posted_nanos)
SELECT b.ledger_account_id, :before, coalesce(s.posted_nanos, 0) + e.folded_nanos
  FROM (SELECT ledger_account_id, sum(amount_nanos) AS folded_nanos FROM ledger_entries
         WHERE at >= :last AND at < :before GROUP BY ledger_account_id) e
  JOIN balances b ON b.ledger_account_id = e.ledger_account_id
  LEFT JOIN LATERAL (SELECT posted_nanos FROM seals
                      WHERE ledger_account_id = b.ledger_account_id AND sealed_before <= :last
                      ORDER BY sealed_before DESC LIMIT 1) s ON true
""")
_SEAL_BUDGETS = text("""
INSERT INTO budget_seals (sealed_before, key_id, begins_at, charged_nanos)
SELECT :before, key_id, begins_at, sum(charged_nanos)
  FROM (SELECT key_id, begins_at, charged_nanos FROM budget_seals WHERE sealed_before = :last
        UNION ALL SELECT key_id, begins_at, charge_nanos FROM budget_charges(:last, :before)) c
 WHERE begins_at >= date_trunc('day', CAST(:before AS timestamptz), 'UTC')
 GROUP BY key_id, begins_at
""")
_FORGET_BUDGETS = text("DELETE FROM budget_seals WHERE sealed_before < :last")
_BEGINNING: Final = datetime(1, 1, 2, tzinfo=UTC)


async def ensure_partitions(
    engine: AsyncEngine, first: date, months: int = 3, *, waits_ms: int = WAITS_MS
) -> int:
    """Make the monthly partitions from `first`'s month on that are missing; return how many.

    Each is made by itself, for its table is locked against all who read and write, and who waits
    for that lock has everybody else wait. One whose table is in use for longer than `waits_ms`, or
    that cannot be made, is noted in the log: its rows are kept in the table's default partition.
    """
    span = {"first": first, "months": months}
    async with engine.connect() as connection:
        missing = list(await connection.scalars(_MISSING, span))
    failed: dict[str, str] = {}
    for name in missing:
        try:
            async with engine.begin() as connection:
                await connection.execute(_PATIENCE, {"waits": f"{waits_ms}ms"})
                await connection.execute(_MAKE, {**span, "name": name})
        except DBAPIError as error:
            if is_database_away(error) and not is_in_use(error):
                raise
            failed[name] = str(error.orig)
    if failed:
        reasons = list(failed.values())
        _log.warning("partitions_not_made", partitions=list(failed), reasons=reasons)
    return len(missing) - len(failed)


async def delete_expired(connection: AsyncConnection, now: datetime) -> int:
    """Delete expired idempotency keys, login links, console sessions and old quotes; return how
    many."""
    keys = await idempotency.delete_expired(connection, now)
    old = await quotes.delete_old(connection, now)
    return keys + old + await sessions.delete_expired(connection, now)


async def drop_evidence(connection: AsyncConnection, before: datetime) -> int:
    """Drop the months of evidence that ended before a moment, wherever they are kept; return how
    many.

    Raises DBAPIError where the table is in use for so long that it is better tried again later.
    """
    dropped = await connection.scalar(
        text("SELECT drop_evidence_before(:before)"), {"before": before}
    )
    return int(dropped or 0)


async def time(connection: AsyncConnection) -> datetime:
    """Return what the database's clock says, in UTC."""
    found: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return found


async def last_seal(connection: AsyncConnection) -> datetime | None:
    """Return the moment before which all is sealed, None when nothing is."""
    found: datetime | None = await connection.scalar(
        text("SELECT max(sealed_before) FROM seal_periods")
    )
    return found


async def count_settled(
    connection: AsyncConnection, since: datetime, until: datetime, most: int
) -> int:
    """Return how many calls were settled from `since` on and before `until`, at most `most`."""
    found = await connection.scalar(_SETTLED, {"since": since, "until": until, "most": most})
    return int(found or 0)


async def insert_seals(
    connection: AsyncConnection, sealed_before: datetime, last: datetime | None, *, for_checks: bool
) -> int:
    """Seal every balance that moved, as of `sealed_before`, on top of the seals of `last`; return
    how many.

    What is counted in budgets of that day is sealed too. A check that has just begun may still go
    by `last`; what budgets had at former seals is of no use to anybody.
    """
    await connection.execute(_PERIOD, {"before": sealed_before, "for_checks": for_checks})
    span = {"before": sealed_before, "last": last or _BEGINNING}
    done = await connection.execute(_SEAL, span)
    await connection.execute(_SEAL_BUDGETS, span)
    await connection.execute(_FORGET_BUDGETS, {"last": span["last"]})
    return done.rowcount


def is_in_use(error: DBAPIError) -> bool:
    """True when a lock was waited for in vain."""
    return isinstance(driver_error(error), LockNotAvailableError)
