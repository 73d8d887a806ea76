"""Events: what happened to money, written in the transaction in which it happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.store.tables import table

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
