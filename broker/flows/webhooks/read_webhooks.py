"""Reads webhooks, what became of deliveries, and events: each account its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role
from broker.store.webhooks import deliveries, events, subscriptions
from broker.store.webhooks.deliveries import Backlog, Delivery, State
from broker.store.webhooks.events import Sought, Told
from broker.store.webhooks.subscriptions import Webhook


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """An account's webhooks, oldest first, and what waits for them."""

    webhooks: list[Webhook]
    backlog: Mapping[UUID, Backlog]


async def list_webhooks(engine: AsyncEngine, owner: Caller) -> Subscriptions:
    """Return the caller's webhooks."""
    async with engine.connect() as connection:
        found = await subscriptions.list_webhooks(connection, owner.account_id)
        waiting = await deliveries.backlog(connection, [each.id for each in found])
    return Subscriptions(found, waiting)


async def list_deliveries(
    engine: AsyncEngine,
    owner: Caller,
    webhook_id: UUID,
    state: State | None,
    page: tuple[UUID | None, int],
) -> list[Delivery]:
    """Return deliveries, newest event first; `page` is the last event seen and how many.

    Raises NotFound for another's webhook.
    """
    before, limit = page
    async with engine.connect() as connection:
        await subscriptions.find(connection, webhook_id, owner.account_id)
        return await deliveries.list_deliveries(
            connection, webhook_id, state=state, before=before, limit=limit
        )


async def list_events(
    engine: AsyncEngine, caller: Caller, sought: Sought, before: int | None, limit: int
) -> list[Told]:
    """Return events, newest first, before the number `before`: an operator's are all."""
    owner = None if caller.role is Role.OPERATOR else caller.account_id
    async with engine.connect() as connection:
        return await events.list_events(connection, owner, sought, before, limit)
