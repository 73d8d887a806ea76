"""Tells webhooks what has happened, each event of an object after the one before it.

One `look` queues what is new and takes up the webhooks for which something is due, each by one
worker at a time (its lease) and in a task of its own, so that none waits for another's target. What
a worker that dies was about to send is sent by the next: at least once, under the same event id.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import httpx
import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.webhooks import DISABLED, GONE, SETTLED, Patience
from broker.outbound.webhooks import TOTAL_S, Message, Receipt, post
from broker.store.away import DATABASE_AWAY, told
from broker.store.calls import settled_calls
from broker.store.sealing import Sealer, SecretUnreadable
from broker.store.webhooks import deliveries, events, queueing, subscriptions
from broker.store.webhooks.deliveries import Delivery, Tried
from broker.store.webhooks.events import Event
from broker.store.webhooks.subscriptions import Webhook
from broker.upstream import checked_httpx
from broker.upstream.addresses import AddressPolicy

_log = structlog.get_logger(__name__)

AT_ONCE: Final = 8
"""Posts under way to one webhook."""
PLACES: Final = 128
"""Webhooks served at once by one worker."""
LEASED_S: Final = 90.0
TURN_S: Final = 45.0
"""So long a worker stays with a webhook before it looks for others; with the longest post that
may still be under way then, it is well within the lease."""
BACKLOG_MAX: Final = 100_000
"""A webhook for which more than this waits is disabled."""

Sent = tuple[Delivery, Receipt]


@dataclass(frozen=True, slots=True)
class Means:
    """What sending takes; `chance` draws from 0 to 1, evenly."""

    engine: AsyncEngine
    sealer: Sealer
    addresses: AddressPolicy
    clock: Callable[[], datetime]
    chance: Callable[[], float]
    patience: Patience = field(default_factory=Patience)
    tls: ssl.SSLContext | None = None
    """Without one of its own it trusts the public authorities."""
    threads: Executor | None = None
    """Where names are resolved; enough of them, and slow names make no others wait."""
    total_s: float = TOTAL_S
    """A post has so long."""
    backlog_max: int = BACKLOG_MAX


class Courier:
    """Tells webhooks, for one worker process."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._turns: set[asyncio.Task[None]] = set()
        # The worker has few connections, which its other jobs need too.
        self._books = asyncio.Semaphore(1)

    async def look(self) -> int:
        """Queue what is new, and begin to serve the webhooks that are due; return how many."""
        means, now = self._means, self._means.clock()
        async with self._books:
            async with means.engine.begin() as connection:
                await queueing.queue(connection, now)
            async with means.engine.begin() as connection:
                taken = await self._take_up(connection, now)
        for webhook in taken:
            turn = asyncio.create_task(self._serve(webhook))
            self._turns.add(turn)
            turn.add_done_callback(self._turns.discard)
        return len(taken)

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        while self._turns:
            await asyncio.wait(self._turns)

    async def _take_up(self, connection: AsyncConnection, now: datetime) -> list[Webhook]:
        free = PLACES - len(self._turns)
        due = await deliveries.lock_due(connection, now, free) if free > 0 else []
        if not due:
            return []
        leased = await subscriptions.lease(connection, due, now + timedelta(seconds=LEASED_S))
        for webhook_id, backlog in (await deliveries.backlog(connection, due)).items():
            if backlog.waiting > self._means.backlog_max:
                overwhelmed = leased.pop(webhook_id)
                await disable(connection, overwhelmed, "too many events waited", now)
        return list(leased.values())

    async def _serve(self, webhook: Webhook) -> None:
        try:
            await self._send_all(webhook)
        except SecretUnreadable as error:
            _log.error("webhook_not_served", webhook=str(webhook.id), reason=error.detail)
        except DATABASE_AWAY as error:
            _log.warning("webhook_left_for_later", webhook=str(webhook.id), reason=told(error))
        except Exception:  # one bad turn must not go unseen; when its lease ends, another is had
            _log.exception("webhook_turn_failed", webhook=str(webhook.id))

    async def _send_all(self, webhook: Webhook) -> None:
        means = self._means
        secrets = webhook.secrets(means.sealer, means.clock())
        ends_at = means.clock() + timedelta(seconds=TURN_S)
        to = (means.addresses, means.tls, means.threads)
        async with checked_httpx.transport(*to) as transport:
            while means.clock() < ends_at:
                places = 1 if webhook.failures else AT_ONCE
                async with self._books, means.engine.begin() as connection:
                    heads = await deliveries.heads(connection, webhook.id, means.clock(), places)
                    bodies = await _bodies(connection, webhook, heads)
                if not heads:
                    break
                posts = (
                    self._post((transport, webhook.url), secrets, each, bodies[each.event_id])
                    for each in heads
                )
                sent = list(zip(heads, await asyncio.gather(*posts), strict=True))
                health = await self._record(webhook, sent)
                if health is None:
                    return
                webhook = health
        async with self._books, means.engine.begin() as connection:
            await subscriptions.release(connection, webhook, means.clock())

    async def _post(
        self,
        to: tuple[httpx.AsyncBaseTransport, str],
        secrets: Sequence[str],
        delivery: Delivery,
        body: bytes,
    ) -> Receipt:
        event_id, attempt = str(delivery.event_id), delivery.attempts + 1
        message = Message(event_id, delivery.kind, body, attempt)
        return await post(*to, message, secrets, self._means.clock(), self._means.total_s)

    async def _record(self, webhook: Webhook, sent: Sequence[Sent]) -> Webhook | None:
        """Write down what became of posts; return the webhook as it does, None when it is done."""
        means, now = self._means, self._means.clock()
        patience = means.patience
        tried = [self._tried(*each, now) for each in sent]
        gone = any(receipt.status == GONE for _, receipt in sent)
        came_through = any(receipt.fault is None for _, receipt in sent)
        failures = 0 if came_through else webhook.failures + 1
        since = None if came_through else webhook.failing_since or now
        resume_at = patience.resume_at(failures, now)
        async with self._books, means.engine.begin() as connection:
            await deliveries.record(connection, tried, now)
            await subscriptions.set_health(connection, webhook.id, failures, since, resume_at)
            if gone:
                await disable(connection, webhook, "the target answered 410, gone", now)
            elif since is not None and patience.disabled(since, now):
                await disable(connection, webhook, "nothing came through for days", now)
            elif since is None or resume_at <= now:
                return replace(webhook, failures=failures, failing_since=since)
            await subscriptions.release(connection, webhook, now)
        return None

    def _tried(self, delivery: Delivery, receipt: Receipt, now: datetime) -> Tried:
        patience = self._means.patience
        due_at = None
        if receipt.fault is not None and not patience.given_up(delivery.queued_at, now):
            due_at = patience.retry_at(delivery.attempts + 1, now, self._means.chance())
        return Tried(delivery, receipt.status, receipt.fault, receipt.detail, due_at)


async def disable(
    connection: AsyncConnection, webhook: Webhook, reason: str, now: datetime
) -> None:
    """Send a webhook nothing more, give up what waits for it, and tell its owner."""
    await subscriptions.disable(connection, webhook.id)
    given_up = await deliveries.give_up_all(connection, webhook.id, "webhook_disabled", now)
    told = {"url": webhook.url, "reason": reason, "given_up": given_up}
    event = Event(DISABLED, f"webhooks/{webhook.id}", webhook.account_id, told)
    await events.tell(connection, event, now)


def body_of(event_id: UUID, kind: str, target: str, at: datetime, payload: Any) -> bytes:
    """Return an event as it is posted."""
    return msgspec.json.encode(
        {"id": event_id, "kind": kind, "object": target, "at": at, "data": payload}
    )


async def _bodies(
    connection: AsyncConnection, webhook: Webhook, heads: Sequence[Delivery]
) -> dict[UUID, bytes]:
    calls = [(each.event_id, each.at) for each in heads if each.kind == SETTLED]
    settled: dict[UUID, dict[str, Any]] = {}
    if calls:
        settled = await settled_calls.payloads(connection, calls, webhook.account_id, webhook.role)
    return {
        each.event_id: body_of(
            each.event_id,
            each.kind,
            each.target,
            each.at,
            settled.get(each.event_id, {}) if each.kind == SETTLED else each.payload,
        )
        for each in heads
    }
