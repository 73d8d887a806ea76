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
    assert view.isidentifier(), "views are named by the schema"
    rows = await connection.execute(text(f"SELECT * FROM {view} LIMIT {_ROWS_MAX}"))  # noqa: S608
    return [Alarm(view, dict(row)) for row in rows.mappings()]
