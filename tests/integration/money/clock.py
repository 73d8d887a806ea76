"""A database whose clock is told the time: days go by in a moment, for SQL as for Python.

What SQL calls `now()` is found in a schema that comes before PostgreSQL's own, so not a word of
what is tested changes.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import asyncpg

_AHEAD: Final = "CREATE TABLE ahead AS SELECT interval '0' AS of_others"
_CLOCKS: Final = {
    "now": "STABLE",
    "statement_timestamp": "STABLE",
    "clock_timestamp": "VOLATILE",
}


async def install(connection: asyncpg.Connection) -> None:
    """Give a database such clocks; copies have them too, but do not follow them by themselves."""
    await connection.execute(_AHEAD)
    for name, kind in _CLOCKS.items():
        await connection.execute(
            f"CREATE FUNCTION {name}() RETURNS timestamptz LANGUAGE sql {kind} AS"
            f" 'SELECT pg_catalog.{name}() + of_others FROM public.ahead'"
        )


async def follow(office: asyncpg.Connection, database: str) -> None:
    """Have all who connect to a database from now on go by its clock."""
    await office.execute(f"ALTER DATABASE {database} SET search_path = public, pg_catalog")


async def set_to(connection: asyncpg.Connection, now: datetime) -> None:
    """Let it be this time."""
    await connection.execute("UPDATE ahead SET of_others = $1 - pg_catalog.clock_timestamp()", now)


async def advance(connection: asyncpg.Connection, time: timedelta) -> None:
    """Let time go by."""
    await connection.execute("UPDATE ahead SET of_others = of_others + $1::interval", time)
