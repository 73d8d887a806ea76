"""Webhooks and events: every account has its own."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, JSONBody, QueryParameter
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api import beside
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine, GivenParts, GivenTime
from broker.api.webhooks.webhook_messages import (
    DeliveryList,
    EventList,
    Pinged,
    ReplayAsked,
    Requeued,
    RotationAsked,
    WebhookAsked,
    WebhookList,
    WebhookMade,
    WebhookShown,
    delivery_shown,
    event_shown,
    pinged,
    webhook_made,
    webhook_shown,
)
from broker.api.wire import After, Limit, Since, Until, in_utc
from broker.errors import RequestMalformed
from broker.flows.webhooks import subscribe
from broker.flows.webhooks.ping_webhook import Postbag, ping_webhook
from broker.flows.webhooks.read_webhooks import list_deliveries, list_events, list_webhooks
from broker.flows.webhooks.replay_events import replay_events
from broker.store.webhooks.deliveries import State
from broker.store.webhooks.events import Sought, Told

Wanted = Annotated[str | None, QueryParameter(max_length=200, description="Exactly this.")]
Before = Annotated[int | None, QueryParameter(name="cursor", description="The last page's cursor.")]

Standing = Annotated[
    State | None, QueryParameter(name="state", description="Only those that stand so.")
]


def asked_events(
    kind: Wanted = None,
    object: Wanted = None,  # noqa: A002 - as the query names it
    since: Since = None,
    until: Until = None,
) -> Sought:
    """Read which events are asked for."""
    return Sought(kind, object, in_utc(since), in_utc(until))


class WebhookController(Controller):
    """`/api/webhooks`"""

    path = "/webhooks"
    tags = ("Webhooks",)

    @post(summary="Be told of events")
    async def add(
        self,
        data: JSONBody[WebhookAsked],
        parts: GivenParts,
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[WebhookMade]:
        # A name may take its time to be resolved, so no transaction is open meanwhile.
        await subscribe.check_target(data.url, parts.addresses)

        async def act(connection: AsyncConnection) -> WebhookMade:
            wanted = (data.url, data.kinds)
            made = await subscribe.subscribe(connection, caller, wanted, parts.sealer, now)
            return webhook_made(made.webhook, made.secret)

        return await once(act)

    @get(summary="List the account's webhooks")
    async def list(self, engine: GivenEngine, caller: GivenCaller) -> WebhookList:
        found = await list_webhooks(engine, caller)
        shown = [webhook_shown(each, found.backlog.get(each.id)) for each in found.webhooks]
        return WebhookList(webhooks=shown)

    @delete("/{webhook_id:uuid}", summary="Be told no more")
    async def remove(
        self,
        webhook_id: FromPath[UUID],
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
    ) -> None:
        async with engine.begin() as connection:
            await subscribe.unsubscribe(connection, caller, webhook_id, now)

    @post("/{webhook_id:uuid}/ping", summary="Send a test event at once", status_code=200)
    async def ping(
        self,
        webhook_id: FromPath[UUID],
        parts: GivenParts,
        caller: GivenCaller,
        now: GivenTime,
    ) -> Pinged:
        bag = Postbag(parts.engine, parts.sealer, parts.addresses)
        return pinged(await ping_webhook(bag, caller, webhook_id, now))

    @post("/{webhook_id:uuid}/rotate", summary="Make a new secret")
    async def rotate(
        self,
        webhook_id: FromPath[UUID],
        parts: GivenParts,
        caller: GivenCaller,
        once: GivenOnce,
        data: JSONBody[RotationAsked | None] = None,
    ) -> Response[WebhookMade]:
        overlap = timedelta(seconds=(data or RotationAsked()).overlap_s)
        sealing = (parts.sealer, parts.clock())

        async def act(connection: AsyncConnection) -> WebhookMade:
            made = await subscribe.rotate_secret(connection, caller, webhook_id, overlap, sealing)
            return webhook_made(made.webhook, made.secret)

        return await once(act)

    @post("/{webhook_id:uuid}/enable", summary="Be told again after it was disabled")
    async def enable(
        self,
        webhook_id: FromPath[UUID],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[WebhookShown]:
        async def act(connection: AsyncConnection) -> WebhookShown:
            return webhook_shown(await subscribe.enable(connection, caller, webhook_id, now), None)

        return await once(act, status=200)

    @post("/{webhook_id:uuid}/replay", summary="Be told once more")
    async def replay(
        self,
        webhook_id: FromPath[UUID],
        data: JSONBody[ReplayAsked],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[Requeued]:
        wanted = data.event_id or in_utc(data.since)
        if wanted is None or (data.event_id and data.since):
            raise RequestMalformed("Either 'event_id' or 'from' is needed, and not both.")

        async def act(connection: AsyncConnection) -> Requeued:
            queued = await replay_events(connection, caller, webhook_id, wanted, now)
            return Requeued(events=queued.events, goes_on_at=queued.goes_on_at)

        return await once(act, status=202)

    @get("/{webhook_id:uuid}/deliveries", summary="What became of events")
    async def deliveries(
        self,
        webhook_id: FromPath[UUID],
        engine: GivenEngine,
        caller: GivenCaller,
        standing: Standing = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> DeliveryList:
        found = await list_deliveries(engine, caller, webhook_id, standing, (cursor, limit))
        full = len(found) == limit
        return DeliveryList(
            deliveries=[delivery_shown(each) for each in found],
            cursor=found[-1].event_id if full else None,
        )


class EventController(Controller):
    """`/api/events`"""

    tags = ("Webhooks",)

    @get(
        "/events",
        summary="What happened to the account's money",
        dependencies={"sought": Provide(asked_events, sync_to_thread=False)},
    )
    async def list(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        sought: NamedDependency[Sought],
        limit: Limit = 100,
        cursor: Before = None,
    ) -> Response[EventList]:
        found = await list_events(engine, caller, sought, cursor, limit)
        return await beside.answer(partial(_events_shown, found, limit))


def _events_shown(found: list[Told], limit: int) -> EventList:
    full = len(found) == limit
    return EventList(
        events=[event_shown(each) for each in found], cursor=found[-1].number if full else None
    )
