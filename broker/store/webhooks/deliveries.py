"""What is to be sent to webhooks: taken from the queue in order, and what became of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from sqlalchemy import Row, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import table

deliveries = table(
    "webhook_deliveries",
    """
    webhook_id uuid, event_id uuid, kind text, object text, place bigint, at timestamptz,
    state text, attempts smallint, queued_at timestamptz, due_at timestamptz,
    tried_at timestamptz, status smallint, fault text, detail text
    """,
)

State = Literal["waiting", "delivered", "failed"]

DELIVERED_KEPT: Final = timedelta(days=3)
"""Longer than the queue ever looks back, for what is remembered here is not queued again."""
FAILED_KEPT: Final = timedelta(days=30)

_DUE = """
SELECT w.id FROM webhooks w JOIN accounts a ON a.id = w.account_id
 WHERE w.status = 'enabled' AND w.leased_until <= :now AND w.resume_at <= :now
   AND a.closed_at IS NULL
   AND EXISTS (SELECT 1 FROM webhook_deliveries d
                WHERE d.webhook_id = w.id AND d.state = 'waiting' AND d.due_at <= :now)
 ORDER BY w.resume_at LIMIT :places FOR UPDATE OF w SKIP LOCKED
"""
# Written so that it goes along one index and asks another for each row until it has enough, where
# an anti-join could be planned to read all that waits.
_HEADS = """
SELECT h.*, e.payload
  FROM (SELECT d.*
          FROM webhook_deliveries d
          LEFT JOIN LATERAL (SELECT true AS waits FROM webhook_deliveries b
                              WHERE b.webhook_id = d.webhook_id AND b.object = d.object
                                AND b.state = 'waiting' AND b.place < d.place LIMIT 1) b ON true
         WHERE d.webhook_id = :webhook AND d.state = 'waiting' AND d.due_at <= :now
           AND b.waits IS NULL
         ORDER BY d.due_at, d.place LIMIT :places) AS h
  LEFT JOIN events e ON e.id = h.event_id
 ORDER BY h.due_at, h.place
"""
_RECORD = """
UPDATE webhook_deliveries
   SET state = :state, attempts = attempts + 1, due_at = :due_at, tried_at = :now,
       status = :status, fault = :fault, detail = :detail
 WHERE webhook_id = :webhook AND event_id = :event
"""
_PURGE = """
DELETE FROM webhook_deliveries
 WHERE state <> 'waiting'
   AND tried_at < CASE state WHEN 'delivered' THEN CAST(:delivered AS timestamptz)
                             ELSE CAST(:failed AS timestamptz) END
   -- What the next round may look back at must be remembered, however long ago the last one was.
   AND tried_at < (SELECT looked_back_at - interval '3 hours' FROM webhook_progress)
"""
_BACKLOG = """
SELECT webhook_id, count(*) AS waiting, min(queued_at) AS since
  FROM webhook_deliveries WHERE state = 'waiting' AND webhook_id = ANY(:ids)
 GROUP BY webhook_id
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event for one webhook; `payload` is None for a settled call, which is told otherwise."""

    webhook_id: UUID
    event_id: UUID
    kind: str
    target: str
    at: datetime
    state: State
    attempts: int
    queued_at: datetime
    due_at: datetime
    tried_at: datetime | None
    status: int | None
    fault: str | None
    detail: str | None
    payload: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of an attempt; `due_at` is when the next one is, None when it was the last."""

    delivery: Delivery
    status: int | None
    fault: str | None
    detail: str
    due_at: datetime | None

    @property
    def state(self) -> State:
        """Where the delivery stands now."""
        if self.fault is None:
            return "delivered"
        return "failed" if self.due_at is None else "waiting"


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many events wait for a webhook, and since when the oldest does."""

    waiting: int
    since: datetime


async def lock_due(connection: AsyncConnection, now: datetime, places: int) -> list[UUID]:
    """Lock up to `places` webhooks that have something due and that nobody else sends to."""
    rows = await connection.execute(text(_DUE), {"now": now, "places": places})
    return list(rows.scalars())


async def heads(
    connection: AsyncConnection, webhook_id: UUID, now: datetime, places: int
) -> list[Delivery]:
    """Return up to `places` deliveries that are due; of each object only the first that waits."""
    wanted = {"webhook": webhook_id, "now": now, "places": places}
    rows = await connection.execute(text(_HEADS), wanted)
    return [_delivery(row, row.payload) for row in rows]


async def record(connection: AsyncConnection, tried: Sequence[Tried], now: datetime) -> None:
    """Write down what became of attempts."""
    rows = [
        {
            "state": each.state,
            "due_at": each.due_at or now,
            "now": now,
            "status": each.status,
            "fault": each.fault,
            "detail": each.detail or None,
            "webhook": each.delivery.webhook_id,
            "event": each.delivery.event_id,
        }
        for each in tried
    ]
    await connection.execute(text(_RECORD), rows)


async def give_up_all(
    connection: AsyncConnection, webhook_id: UUID, fault: str, now: datetime
) -> int:
    """Give up all that waits for a webhook; return how many."""
    done = await connection.execute(
        update(deliveries)
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.state == "waiting")
        .values(state="failed", tried_at=now, fault=fault)
    )
    return done.rowcount


async def backlog(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, Backlog]:
    """Return what waits for those of these webhooks for which something does."""
    rows = await connection.execute(text(_BACKLOG), {"ids": list(ids)})
    return {row.webhook_id: Backlog(row.waiting, row.since) for row in rows}


async def list_deliveries(
    connection: AsyncConnection,
    webhook_id: UUID,
    *,
    state: State | None,
    before: UUID | None,
    limit: int,
) -> list[Delivery]:
    """Return up to `limit` deliveries of a webhook, newest event first, before the id `before`."""
    query = select(deliveries).where(deliveries.c.webhook_id == webhook_id)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if before is not None:
        query = query.where(deliveries.c.event_id < before)
    rows = await connection.execute(query.order_by(deliveries.c.event_id.desc()).limit(limit))
    return [_delivery(row) for row in rows]


async def purge(connection: AsyncConnection, now: datetime) -> int:
    """Forget deliveries that were made or given up long ago; return how many."""
    bounds = {"delivered": now - DELIVERED_KEPT, "failed": now - FAILED_KEPT}
    return (await connection.execute(text(_PURGE), bounds)).rowcount


def _delivery(row: Row[Any], payload: dict[str, Any] | None = None) -> Delivery:
    return Delivery(
        webhook_id=row.webhook_id,
        event_id=row.event_id,
        kind=row.kind,
        target=row.object,
        at=row.at,
        state=row.state,
        attempts=row.attempts,
        queued_at=row.queued_at,
        due_at=row.due_at,
        tried_at=row.tried_at,
        status=row.status,
        fault=row.fault,
        detail=row.detail,
        payload=payload,
    )
