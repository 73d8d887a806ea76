"""Sends a webhook events once more: one by its id, or all that it wants from a time on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Conflict, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.webhooks import queueing, subscriptions
from broker.store.webhooks.queueing import Requeued

BACK_MAX: Final = timedelta(days=90)
_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)


async def replay_events(
    connection: AsyncConnection,
    owner: Caller,
    webhook_id: UUID,
    wanted: UUID | datetime,
    now: datetime,
) -> Requeued:
    """Queue an event, whatever its kind, or what happened from a time on.

    They come under their own ids and in the order of their objects. Raises NotFound for another's
    webhook or event, Conflict for one that is disabled, RequestMalformed beyond BACK_MAX.
    """
    webhook = await subscriptions.find(connection, webhook_id, owner.account_id, lock=True)
    if webhook.status == "disabled":
        raise Conflict("The webhook is disabled; enable it first.", code="webhook_disabled")
    if isinstance(wanted, UUID):
        queued = await queueing.replay(connection, webhook_id, wanted, _BEGINNING, now)
        if not queued.events:
            raise NotFound("There is no such event.")
        return queued
    if wanted < now - BACK_MAX:
        raise RequestMalformed(
            f"Events of the last {BACK_MAX.days} days can be replayed.", code="replay_too_far_back"
        )
    return await queueing.replay(connection, webhook_id, None, wanted, now)
