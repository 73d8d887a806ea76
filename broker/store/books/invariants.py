"""The invariant and replay views: each row of each of them is an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ROWS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Alarm:
    """A row that should not be."""

    view: str
    row: Mapping[str, object]


async def view_names(connection: AsyncConnection, prefix: str) -> list[str]:
    """Return the views whose name begins with `prefix`."""
    rows = await connection.execute(
        text(
            "SELECT viewname FROM pg_views WHERE schemaname = current_schema()"
            " AND starts_with(viewname, :prefix) ORDER BY viewname"
        ),
        {"prefix": prefix},
    )
    return list(rows.scalars())


async def go_by_the_last_seal(connection: AsyncConnection) -> None:
    """Tell the views when the last seal was, for the rest of the transaction.

    Who plans what they ask cannot know it otherwise, and would read all records for the newest.
    """
    await connection.execute(
        text("SELECT set_config('broker.sealed_before', sealed_before::text, true) FROM last_seal")
    )


async def alarms_of(connection: AsyncConnection, view: str) -> list[Alarm]:
    """Return the alarms of one view, at most 100; each view reads one snapshot."""
    rows = await connection.execute(text(looking_through(view)))
    return [Alarm(view, dict(row)) for row in rows.mappings()]


def looking_through(view: str) -> str:
    """Return the statement that asks a view for its alarms.

    Nearly always there are none, and all is read. Under a bare limit it would be planned as if a
    hundred were found early: by way of an index, one record of all time after the other.
    """
    assert view.isidentifier(), "views are named by the schema"
    found = f"SELECT * FROM {view}"  # noqa: S608
    return f"WITH found AS MATERIALIZED ({found}) SELECT * FROM found LIMIT {_ROWS_MAX}"  # noqa: S608
