"""The audit log: who did what to which object, written in the transaction that did it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.store.tables import audit_log

_LIST_MAX = 1_000
ROWS_AT_ONCE: Final = 20
"""An offer of a thousand endpoints is a row of 170 kB, which takes half a millisecond."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that was done, by whom, to what.

    `author` is an account's name, `action` a verb, `target` a kind and an id such as
    `deployments/<id>`; `detail` holds JSON values, no secret and no content.
    """

    author: str
    action: str
    target: str
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """A deed as it stands in the log."""

    id: UUID
    at: datetime
    deed: Deed


async def record(connection: AsyncConnection, deed: Deed, now: datetime) -> None:
    """Append a deed to the log."""
    await connection.execute(
        insert(audit_log).values(
            id=uuid7(),
            at=now,
            author=deed.author,
            action=deed.action,
            object=deed.target,
            detail=dict(deed.detail),
        )
    )


@dataclass(frozen=True, slots=True)
class Sought:
    """Which entries: `author`, `action` and `target` exactly, `since` included, `until` not."""

    author: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


ALL = Sought()


async def list_entries(
    connection: AsyncConnection, sought: Sought = ALL, before: UUID | None = None, limit: int = 100
) -> list[Entry]:
    """Return up to `limit` (at most 1,000) entries, newest first, before the id `before`."""
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(min(limit, _LIST_MAX))
    if before is not None:
        query = query.where(audit_log.c.id < before)
    query = query.where(
        *(
            column == wanted
            for column, wanted in (
                (audit_log.c.author, sought.author),
                (audit_log.c.action, sought.action),
                (audit_log.c.object, sought.target),
            )
            if wanted is not None
        )
    )
    if sought.since is not None:
        query = query.where(audit_log.c.at >= sought.since)
    if sought.until is not None:
        query = query.where(audit_log.c.at < sought.until)
    entries: list[Entry] = []
    async with connection.stream(query, execution_options={"yield_per": ROWS_AT_ONCE}) as rows:
        async for part in rows.partitions():
            entries += [
                Entry(row.id, row.at, Deed(row.author, row.action, row.object, row.detail))
                for row in part
            ]
    return entries
