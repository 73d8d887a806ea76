"""Counts of calls that endpoints served or lost, by the hour; folded from the stories of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.lost import Fate, Kind
from broker.store.progress import first_id
from broker.store.tables import among, calls, table

CALL_MAX: Final = timedelta(minutes=66)
"""No call lasts longer: the longest deadline, and what its caller may take after it."""
_SLACK: Final = timedelta(minutes=1)
"""Between a call's id and its time of admission, which come from two readings of clocks."""
_ROWS_AT_ONCE: Final = 1_000

lost_calls = table(
    "lost_calls",
    """
    endpoint_number integer, hour timestamptz, fate text, reason text, detail text, rank smallint,
    calls bigint
    """,
)


@dataclass(frozen=True, slots=True)
class EndedCall:
    """When a call ended, and its story."""

    ended_at: datetime
    story: bytes


@dataclass(frozen=True, slots=True)
class Counted:
    """How many calls had this fate."""

    fate: Fate
    calls: int


async def read_ended(
    connection: AsyncConnection, since: datetime, until: datetime, limit: int
) -> list[EndedCall]:
    """Return up to `limit` calls that ended from `since` on and before `until`, oldest first."""
    call = calls.c
    ended = call.created_at + sa.func.make_interval(0, 0, 0, 0, 0, 0, call.duration_ms / 1_000)
    begun = since - CALL_MAX
    query = (
        sa.select(ended.label("ended_at"), call.story)
        .where(
            # The id narrows it by the index, the time of admission by the partitions.
            call.id >= first_id(begun - _SLACK),
            call.id < first_id(until + _SLACK),
            call.created_at >= begun,
            call.created_at < until,
            ended >= since,
            ended < until,
        )
        .order_by(ended)
        .limit(limit)
    )
    return [EndedCall(row.ended_at, row.story) for row in await connection.execute(query)]


async def add(connection: AsyncConnection, counts: Mapping[tuple[datetime, Fate], int]) -> None:
    """Add counts, by the hour and the fate."""
    rows = [
        {
            "endpoint_number": fate.endpoint_number,
            "hour": hour,
            "fate": fate.kind.value,
            "reason": fate.reason,
            "detail": fate.detail,
            "rank": fate.rank,
            "calls": count,
        }
        for (hour, fate), count in sorted(counts.items(), key=_order)
    ]
    if not rows:
        return
    fresh = insert(lost_calls)
    await connection.execute(
        fresh.on_conflict_do_update(
            index_elements=[c for c in lost_calls.c if c.name != "calls"],
            set_={"calls": lost_calls.c.calls + fresh.excluded.calls},
        ),
        rows,
    )


async def read_counts(
    connection: AsyncConnection,
    numbers: Sequence[int] | None,
    since: datetime,
    until: datetime,
) -> list[Counted]:
    """Return the counts of these endpoints, of all for None, of the hours from `since` on and
    before `until`; read in parts, for of a large market there are a hundred thousand."""
    lost = lost_calls.c
    columns = (lost.endpoint_number, lost.fate, lost.reason, lost.detail, lost.rank)
    query = (
        sa.select(*columns, sa.func.sum(lost.calls).label("total"))
        .where(lost.hour >= since, lost.hour < until)
        .group_by(*columns)
        .order_by(*columns)
    )
    if numbers is not None:
        query = query.where(among(lost.endpoint_number, numbers))
    counts: list[Counted] = []
    async with connection.stream(query, execution_options={"yield_per": _ROWS_AT_ONCE}) as rows:
        async for part in rows.partitions():
            counts += [Counted(Fate(row[0], Kind(row[1]), *row[2:5]), int(row[5])) for row in part]
    return counts


async def forget(connection: AsyncConnection, before: datetime) -> int:
    """Delete the counts of hours before `before`; return how many rows."""
    done = await connection.execute(sa.delete(lost_calls).where(lost_calls.c.hour < before))
    return done.rowcount


def _order(item: tuple[tuple[datetime, Fate], int]) -> tuple[Any, ...]:
    (hour, fate), _ = item
    return fate.endpoint_number, hour, fate.kind, fate.reason, fate.detail, fate.rank
