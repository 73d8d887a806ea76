"""Events: what happened to money, written in the transaction in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import eq, ge, lt
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.webhooks import NOUNS
from broker.store.tables import table

ROWS_AT_ONCE: Final = 20
"""One that tells of an offer of a thousand endpoints takes half a millisecond."""

events = table(
    "events",
    """
    number bigint, id uuid, at timestamptz, account_id uuid, kind text, object text, payload jsonb
    """,
)


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is a noun and a verb, such as `refund.posted`; `target` a kind and an id, such as
    `refunds/<id>`. `account_id` is whom it concerns, None for operators alone. `payload` holds JSON
    values, amounts as decimal strings in USD, no secret and no content.
    """

    kind: str
    target: str
    account_id: UUID | None
    payload: Mapping[str, object]


async def tell(connection: AsyncConnection, event: Event, now: datetime) -> UUID:
    """Write an event; return its id. It is told to webhooks once the transaction has committed."""
    assert event.kind.partition(".")[0] in NOUNS, f"nobody can ask for {event.kind}"
    event_id = uuid7()
    await connection.execute(
        insert(events).values(
            id=event_id,
            at=now,
            account_id=event.account_id,
            kind=event.kind,
            object=event.target,
            payload=dict(event.payload),
        )
    )
    return event_id


@dataclass(frozen=True, slots=True)
class Sought:
    """Which events: of one kind and one object, `since` included, `until` not."""

    kind: str | None = None
    target: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """An event as it was told; numbers rise, but not by one."""

    number: int
    id: UUID
    at: datetime
    event: Event


async def list_events(
    connection: AsyncConnection,
    account_id: UUID | None,
    sought: Sought,
    before: int | None,
    limit: int,
) -> list[Told]:
    """Return up to `limit` events of an account, or of all, newest first."""
    query = select(events).order_by(events.c.number.desc()).limit(limit)
    conditions = (
        (eq, events.c.account_id, account_id),
        (eq, events.c.kind, sought.kind),
        (eq, events.c.object, sought.target),
        (ge, events.c.at, sought.since),
        (lt, events.c.at, sought.until),
        (lt, events.c.number, before),
    )
    for compare, column, wanted in conditions:
        if wanted is not None:
            query = query.where(compare(column, wanted))
    found: list[Told] = []
    async with connection.stream(query, execution_options={"yield_per": ROWS_AT_ONCE}) as rows:
        async for part in rows.partitions():
            found += [Told(each.number, each.id, each.at, _event(each)) for each in part]
    return found


def _event(row: Row[Any]) -> Event:
    return Event(row.kind, row.object, row.account_id, row.payload)
