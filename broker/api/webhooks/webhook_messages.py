"""What `/api/webhooks` and `/api/events` take and answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from broker.api.wire import Body, Reply
from broker.core.webhooks import KINDS_MAX
from broker.outbound.webhooks import Receipt
from broker.store.webhooks.deliveries import Backlog, Delivery, State
from broker.store.webhooks.events import Told
from broker.store.webhooks.subscriptions import Webhook

DAY_S = 86_400
Kind = Annotated[str, msgspec.Meta(max_length=100)]


class WebhookAsked(Body):
    """Where to send which events: kinds such as `refund.posted`, `refund.*`, or `*`.

    `*` is every kind but `call.settled`, one event for each call, which is to be named.
    """

    url: Annotated[str, msgspec.Meta(max_length=2_000)]
    kinds: Annotated[list[Kind], msgspec.Meta(min_length=1, max_length=KINDS_MAX)]


class RotationAsked(Body):
    """For how long the former secret still signs beside the new one."""

    overlap_s: Annotated[int, msgspec.Meta(ge=0, le=7 * DAY_S)] = DAY_S


class ReplayAsked(Body):
    """One event by its id, or all that the webhook wants from a time on."""

    event_id: UUID | None = None
    since: datetime | None = msgspec.field(name="from", default=None)


class WebhookShown(Reply):
    """A webhook without its secret, and how it does."""

    id: UUID
    url: str
    kinds: list[str]
    status: Literal["enabled", "disabled"]
    created_at: datetime
    failing_since: datetime | None
    failures: int
    waiting: int
    waiting_since: datetime | None


class WebhookMade(Reply):
    """A webhook with its secret, which is shown this once and never again."""

    id: UUID
    url: str
    kinds: list[str]
    secret: str
    former_secret_until: datetime | None


class WebhookList(Reply):
    """The account's webhooks, oldest first."""

    webhooks: list[WebhookShown]


class Pinged(Reply):
    """What became of a test event; `fault` is null when the target took it."""

    status: int | None
    fault: str | None
    detail: str
    took_ms: float


class Requeued(Reply):
    """How many events are sent once more; where there were too many, go on from `goes_on_at`."""

    events: int
    goes_on_at: datetime | None


class DeliveryShown(Reply):
    """An event on its way to a webhook; while it waits, `due_at` is when it is tried next."""

    event_id: UUID
    kind: str
    object: str
    at: datetime
    state: State
    attempts: int
    due_at: datetime | None
    tried_at: datetime | None
    status: int | None
    fault: str | None
    detail: str | None


class DeliveryList(Reply):
    """Deliveries, newest event first; `cursor` asks for the page before."""

    deliveries: list[DeliveryShown]
    cursor: UUID | None


class EventShown(Reply):
    """Something that happened to money, as webhooks are told of it."""

    id: UUID
    kind: str
    object: str
    at: datetime
    data: dict[str, Any]


class EventList(Reply):
    """Events, newest first; `cursor` asks for the page before."""

    events: list[EventShown]
    cursor: int | None


def webhook_shown(webhook: Webhook, backlog: Backlog | None) -> WebhookShown:
    """Write a webhook."""
    return WebhookShown(
        id=webhook.id,
        url=webhook.url,
        kinds=list(webhook.kinds),
        status=webhook.status,
        created_at=webhook.created_at,
        failing_since=webhook.failing_since,
        failures=webhook.failures,
        waiting=0 if backlog is None else backlog.waiting,
        waiting_since=None if backlog is None else backlog.since,
    )


def webhook_made(webhook: Webhook, secret: str) -> WebhookMade:
    """Write a webhook with its new secret."""
    return WebhookMade(
        id=webhook.id,
        url=webhook.url,
        kinds=list(webhook.kinds),
        secret=secret,
        former_secret_until=webhook.former_until,
    )


def pinged(receipt: Receipt) -> Pinged:
    """Write what became of a test event."""
    return Pinged(
        status=receipt.status,
        fault=receipt.fault,
        detail=receipt.detail,
        took_ms=round(receipt.took_ms, 1),
    )


def delivery_shown(delivery: Delivery) -> DeliveryShown:
    """Write a delivery."""
    return DeliveryShown(
        event_id=delivery.event_id,
        kind=delivery.kind,
        object=delivery.target,
        at=delivery.at,
        state=delivery.state,
        attempts=delivery.attempts,
        due_at=delivery.due_at if delivery.state == "waiting" else None,
        tried_at=delivery.tried_at,
        status=delivery.status,
        fault=delivery.fault,
        detail=delivery.detail,
    )


def event_shown(told: Told) -> EventShown:
    """Write an event."""
    event = told.event
    return EventShown(
        id=told.id, kind=event.kind, object=event.target, at=told.at, data=dict(event.payload)
    )
