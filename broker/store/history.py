"""Thins the months of long ago: calls without their stories, each endpoint's first and last price.

A month is a partition. What stays of it is copied into a table beside it, which then takes its
place: all others wait for the exchange alone, which looks at no row. No call is lost, and no price
that was in force at the end of a month.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import Unavailable
from broker.store.maintenance import is_in_use
from broker.store.receipts.signed import time_of
from broker.store.tables import calls

CALLS: Final = "calls"
PRICES: Final = "price_changes"
BOOKS: Final = "price_books"

_KEYS: Final = {CALLS: "created_at", PRICES: "at"}
_THINNED: Final = "thinned"
"""What is noted of a month that has been."""
_LOCK: Final = 0x7468696E  # any number that nothing else locks on
_WAITS_MS: Final = 500
"""Calls wait so long at most for an exchange that another moment will do for."""
_OTHER_BYTES_MAX: Final = 2**26
"""An exchange looks through the default partition, which is empty but for strays."""
_MARGIN: Final = timedelta(days=1)
"""More than a call lasts, and than any two clocks are apart."""
_BOOKS_AT_ONCE: Final = 20_000
TABLE_BUSY: Final = "table_busy"
"""The code of what holds for all months of a table."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of a table that has not been thinned yet."""

    table: str
    name: str
    begins: datetime
    ends: datetime


@dataclass(frozen=True, slots=True)
class Patience:
    """How often an exchange is tried, with so many seconds between."""

    tries: int = 40
    pause_s: float = 2.0


PATIENT: Final = Patience()


@dataclass(frozen=True, slots=True)
class Going:
    """How many rows go or lose their story, and about how many bytes that is."""

    rows: int
    bytes: int


async def months(connection: AsyncConnection, until: datetime) -> list[Month]:
    """Return the months that ended by `until` and have not been thinned, oldest first."""
    rows = await connection.execute(_MONTHS, {"tables": list(_KEYS)})
    found = [_month(*row) for row in rows]
    return [each for each in found if each.ends <= until]


async def stories_read_before(connection: AsyncConnection) -> datetime:
    """Return the moment from which on jobs, or the checks of the books, have calls to look at."""
    row = (await connection.execute(_READ)).one()
    moments = [row.jobs, row.sealed_before, time_of(row.compared)]
    least: datetime = min(moments)
    return least - _MARGIN


async def weigh(connection: AsyncConnection, month: Month) -> Going:
    """Return what thinning a month would take away. It reads the month."""
    statement = _STORIES if month.table == CALLS else _CHANGES
    row = (await connection.execute(text(statement.format(month.name)))).one()
    return Going(int(row.rows), int(row.bytes))


async def weigh_books(connection: AsyncConnection, until: datetime) -> Going:
    """Return what `delete_books` would take away."""
    row = (await connection.execute(_OLD_BOOKS, {"until": until})).one()
    return Going(int(row.rows), int(row.bytes))


async def thin(engine: AsyncEngine, month: Month, patience: Patience = PATIENT) -> bool:
    """Thin a month; False where somebody else does, or has done it.

    Raises Unavailable where it is better tried another day, with the code TABLE_BUSY where so are
    all months of its table.
    """
    async with engine.begin() as connection:
        if not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:n)"), {"n": _LOCK}):
            return False
        if month not in await months(connection, month.ends):
            return False
        await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_WAITS_MS}ms'")
        if await connection.scalar(_OTHER_BYTES, {"name": f"{month.table}_other"}):
            raise Unavailable(f"Of {month.table} too much is in no month.", code=TABLE_BUSY)
        await _copy(connection, month)
        await _exchange(connection, month, patience)
    return True


async def forget_strays(connection: AsyncConnection, until: datetime) -> int:
    """Empty the stories of old calls that no month had room for; return of how many."""
    done = await connection.execute(_STRAYS, {"until": until})
    return done.rowcount


async def delete_books(connection: AsyncConnection, until: datetime) -> int:
    """Delete some of the oldest numbers of price books from before `until`; return how many.

    The newest stays, from which the next is counted.
    """
    done = await connection.execute(_DELETE_BOOKS, {"until": until, "most": _BOOKS_AT_ONCE})
    return done.rowcount


def _month(table: str, name: str) -> Month:
    begins = datetime(int(name[-6:-2]), int(name[-2:]), 1, tzinfo=UTC)
    return Month(table, name, begins, (begins + timedelta(days=32)).replace(day=1))


async def _copy(connection: AsyncConnection, month: Month) -> None:
    fresh, key = f"{month.name}_thin", _KEYS[month.table]
    bounds = f"{key} >= '{month.begins.isoformat()}' AND {key} < '{month.ends.isoformat()}'"
    # Whoever would write to a month of long ago waits; whoever reads it does not.
    try:
        await connection.exec_driver_sql(f"LOCK TABLE {month.name} IN SHARE MODE")
    except DBAPIError as error:
        if not is_in_use(error):
            raise
        raise Unavailable(f"{month.name} is being written to, or cleaned up.") from error
    await connection.exec_driver_sql(
        # The bounds spare the exchange looking at its rows.
        f"CREATE TABLE {fresh} (LIKE {month.name} INCLUDING ALL, CHECK ({bounds}))"
    )
    columns = [each.name for each in calls.c] if month.table == CALLS else None
    await connection.exec_driver_sql(_copied(month, fresh, columns))
    await connection.exec_driver_sql(f"ANALYZE {fresh}")
    await connection.exec_driver_sql(f"COMMENT ON TABLE {fresh} IS '{_THINNED}'")


def _copied(month: Month, fresh: str, columns: list[str] | None) -> str:
    if columns is None:
        return f"INSERT INTO {fresh} " + _ENDS.format(month.name)
    values = [_STORY if name == "story" else name for name in columns]
    return (
        f"INSERT INTO {fresh} ({', '.join(columns)})"  # noqa: S608 - named by the schema
        f" SELECT {', '.join(values)} FROM {month.name}"
    )


async def _exchange(connection: AsyncConnection, month: Month, patience: Patience) -> None:
    """Put the copy into the month's place, as soon as nobody uses the table for a moment."""
    name, span = month.name, f"FROM ('{month.begins.isoformat()}') TO ('{month.ends.isoformat()}')"
    for _ in range(patience.tries):
        try:
            async with connection.begin_nested():
                for statement in (
                    f"LOCK TABLE ONLY {month.table} IN ACCESS EXCLUSIVE MODE",
                    f"ALTER TABLE {month.table} DETACH PARTITION {name}",
                    f"ALTER TABLE {month.table} ATTACH PARTITION {name}_thin FOR VALUES {span}",
                    f"DROP TABLE {name}",
                    f"ALTER TABLE {name}_thin RENAME TO {name}",
                ):
                    await connection.exec_driver_sql(statement)
                return
        except DBAPIError as error:
            if not is_in_use(error):
                raise
        await asyncio.sleep(patience.pause_s)
    raise Unavailable(f"{month.table} was in use all the time.", code=TABLE_BUSY)


_STORY: Final = (
    "CASE WHEN id IN (SELECT call_id FROM disputes WHERE status IN ('open', 'contested')"
    " UNION SELECT call_id FROM receipt_cases WHERE closed_at IS NULL"
    " UNION SELECT call_id FROM receipts_late) THEN story ELSE '' END"
)
"""What is disputed, or is still compared with receipts, keeps its story."""
_ENDS: Final = """
(SELECT DISTINCT ON (endpoint_number) * FROM {0} ORDER BY endpoint_number, at, version)
UNION
(SELECT DISTINCT ON (endpoint_number) * FROM {0} ORDER BY endpoint_number, at DESC, version DESC)
"""
_MONTHS: Final = text("""
SELECT p.relname AS table, c.relname AS name
  FROM pg_inherits i
  JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
 WHERE p.relname = ANY(:tables) AND p.relnamespace = current_schema()::regnamespace
   AND c.relname ~ ('^' || p.relname || '_[0-9]{6}$')
   AND obj_description(c.oid, 'pg_class') IS DISTINCT FROM 'thinned'
 ORDER BY right(c.relname, 6), p.relname
""")
_READ: Final = text("""
SELECT (SELECT CASE WHEN count(*) < 2 THEN '0001-02-01Z' ELSE min(done_before) END FROM progress
         WHERE job IN ('lost_calls', 'sla_credits')) AS jobs,
       (SELECT greatest(sealed_before, '0001-02-01Z') FROM last_seal) AS sealed_before,
       (SELECT compared FROM receipt_horizon) AS compared
""")
_STORIES: Final = """
SELECT count(*) AS rows, coalesce(sum(pg_column_size(story)), 0) AS bytes
  FROM {0} WHERE octet_length(story) > 0
"""
_CHANGES: Final = f"""
SELECT total - kept AS rows,
       (total - kept) * pg_total_relation_size('{{0}}') / greatest(total, 1) AS bytes
  FROM (SELECT count(*) AS total FROM {{0}}) AS t,
       (SELECT count(*) AS kept FROM ({_ENDS}) AS ends) AS k
"""  # noqa: S608 - named by the schema
_OTHER_BYTES: Final = text(f"SELECT pg_relation_size(to_regclass(:name)) > {_OTHER_BYTES_MAX}")
_STRAYS: Final = text(f"""
UPDATE calls_other SET story = '' WHERE created_at < :until AND octet_length(story) > 0
   AND octet_length({_STORY}) = 0
""")  # noqa: S608 - nothing is told from outside
_OLD: Final = "at < :until AND version < (SELECT max(version) FROM price_books)"
_OLD_BOOKS: Final = text(f"""
SELECT count(*) FILTER (WHERE {_OLD}) AS rows,
       count(*) FILTER (WHERE {_OLD}) * pg_total_relation_size('price_books')
           / greatest(count(*), 1) AS bytes
  FROM price_books
""")  # noqa: S608 - nothing is told from outside
_DELETE_BOOKS: Final = text(f"""
DELETE FROM price_books WHERE version IN (
    SELECT version FROM (SELECT version, at FROM price_books ORDER BY version LIMIT :most) AS oldest
     WHERE {_OLD})
""")  # noqa: S608 - nothing is told from outside
