"""Tries a webhook out: one signed post at once, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from broker.core.webhooks import PING
from broker.errors import TooManyCalls
from broker.flows.access.authenticate import Caller
from broker.flows.webhooks.deliver_webhooks import body_of
from broker.flows.webhooks.subscribe import name_threads
from broker.outbound.webhooks import Message, Receipt, post
from broker.store.sealing import Sealer
from broker.store.webhooks import subscriptions
from broker.upstream import checked_httpx
from broker.upstream.addresses import AddressPolicy

PAUSE: Final = timedelta(seconds=2)
"""Between two pings, so that nobody is flooded through the broker."""


@dataclass(frozen=True, slots=True)
class Postbag:
    """What pinging takes."""

    engine: AsyncEngine
    sealer: Sealer
    addresses: AddressPolicy


async def ping_webhook(bag: Postbag, owner: Caller, webhook_id: UUID, now: datetime) -> Receipt:
    """Post an event of the kind `webhook.ping`, which is kept nowhere and not sent again.

    A disabled webhook is tried as well. Raises NotFound, TooManyCalls within PAUSE of the last one.
    """
    async with bag.engine.begin() as connection:
        webhook = await subscriptions.find(connection, webhook_id, owner.account_id, lock=True)
        if webhook.pinged_at is not None and now < webhook.pinged_at + PAUSE:
            raise TooManyCalls(
                "The webhook was pinged a moment ago.",
                code="pinged_just_now",
                retry_after_s=PAUSE.total_seconds(),
            )
        await subscriptions.set_pinged(connection, webhook_id, now)
    event_id = uuid7()
    data = {"webhook": str(webhook_id), "kinds": list(webhook.kinds)}
    body = body_of(event_id, PING, f"webhooks/{webhook_id}", now, data)
    secrets = webhook.secrets(bag.sealer, now)
    async with checked_httpx.transport(bag.addresses, threads=name_threads()) as transport:
        message = Message(str(event_id), PING, body)
        return await post(transport, webhook.url, message, secrets, now)
