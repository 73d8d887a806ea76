"""Keeps the tables in shape: partitions ahead of time, seals behind, and no expired rows."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

import structlog
from asyncpg import LockNotAvailableError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.store import idempotency, quotes, sessions
from broker.store.away import driver_error, is_database_away

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
INSERT INTO seal_periods (sealed_before, created_at, extra) VALUES (:before, now(), :extra)
""")
_SEAL = """
INSERT INTO seals (ledger_account_id, sealed_before, posted_nanos)
SELECT b.ledger_account_id, :before, coalesce(s.posted_nanos, 0) + coalesce(e.folded_nanos, 0)
  FROM balances b
  LEFT JOIN seals s ON s.ledger_account_id = b.ledger_account_id AND s.sealed_before = :last
  LEFT JOIN (SELECT ledger_account_id, sum(amount_nanos) AS folded_nanos FROM ledger_entries
              WHERE at >= :last AND at < :before GROUP BY ledger_account_id) e
         ON e.ledger_account_id = b.ledger_account_id
"""


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
    connection: AsyncConnection, sealed_before: datetime, last: datetime | None, *, extra: bool
) -> int:
    """Seal every balance as of `sealed_before`, on top of the seals of `last`; return how many."""
    await connection.execute(_PERIOD, {"before": sealed_before, "extra": extra})
    beginning = last or datetime.fromisoformat("0001-01-02T00:00:00+00:00")
    done = await connection.execute(text(_SEAL), {"before": sealed_before, "last": beginning})
    return done.rowcount


def is_in_use(error: DBAPIError) -> bool:
    """True when a lock was waited for in vain."""
    return isinstance(driver_error(error), LockNotAvailableError)
