"""Forgets how calls of long ago were decided, and most prices of then; money is never forgotten.

What goes are the stories of calls, all prices of a month but each endpoint's first and last, and
the numbers of price books. It goes by whole months, of which nothing is looked at any more: none
that can still be disputed, or was not yet compared with receipts, counted among lost calls, looked
through for promises that were missed, or sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import Unavailable
from broker.settings import Settings
from broker.store import history
from broker.store.history import BOOKS, CALLS, PATIENT, TABLE_BUSY, Going, Month, Patience

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Piece:
    """What of a table would go; `month` is its first moment, None for what goes by rows."""

    table: str
    month: datetime | None
    going: Going


@dataclass(frozen=True, slots=True)
class Plan:
    """What would go of what ended by `until`; months of calls that ended by then and are still
    looked at stay for now."""

    until: datetime
    pieces: Sequence[Piece]
    waiting: Sequence[Month]


def kept_until(settings: Settings, days: int, now: datetime) -> datetime:
    """Return the moment before which months are forgotten: `days` ago, or when what can still be
    disputed and answered began, whichever is earlier."""
    recourse = settings.recourse
    return now - timedelta(days=max(days, recourse.dispute_window_days + recourse.answer_days))


async def plan(engine: AsyncEngine, until: datetime) -> Plan:
    """Return what `forget` would take away. It reads the months that would go."""
    async with engine.connect() as connection:
        due, waiting = await _due(connection, until)
        pieces = [
            Piece(each.table, each.begins, await history.weigh(connection, each)) for each in due
        ]
        books = Piece(BOOKS, None, await history.weigh_books(connection, until))
    return Plan(until, [*pieces, *([books] if books.going.rows else [])], waiting)


async def forget(engine: AsyncEngine, until: datetime, patience: Patience = PATIENT) -> int:
    """Forget what ended by `until`, month by month; return how many months.

    A month that is in use for long is noted in the log, and left for another day; so are the later
    ones of a table that is.
    """
    async with engine.begin() as connection:
        due, _ = await _due(connection, until)
        await history.forget_strays(connection, min(until, await _looked_at(connection)))
    count = 0
    busy: set[str] = set()
    for month in due:
        if month.table in busy:
            continue
        try:
            count += await history.thin(engine, month, patience)
        except Unavailable as error:
            _log.warning("history_not_forgotten", month=month.name, reason=error.detail)
            if error.code == TABLE_BUSY:
                busy.add(month.table)
    deleted = 1
    while deleted:
        async with engine.begin() as connection:
            deleted = await history.delete_books(connection, until)
    return count


async def _due(
    connection: AsyncConnection, until: datetime
) -> tuple[Sequence[Month], Sequence[Month]]:
    looked_at = await _looked_at(connection)
    ended = await history.months(connection, until)
    waiting = [each for each in ended if each.table == CALLS and each.ends > looked_at]
    return [each for each in ended if each not in waiting], waiting


async def _looked_at(connection: AsyncConnection) -> datetime:
    return await history.stories_read_before(connection)
