"""Subscribes accounts to events: makes webhooks, renews their secrets, enables and ends them."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Final
from uuid import UUID

import httpx
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.webhooks import fault_in
from broker.errors import Conflict, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import audit
from broker.store.access.audit import Deed
from broker.store.sealing import Sealer
from broker.store.webhooks import subscriptions
from broker.store.webhooks.subscriptions import NewWebhook, Webhook
from broker.upstream.addresses import AddressPolicy, resolve
from broker.upstream.faults import AttemptFailed

WEBHOOKS_MAX: Final = 16
"""Webhooks of one account."""
URL_CHARACTERS_MAX: Final = 2_000
OVERLAP_MAX: Final = timedelta(days=7)
_RESOLVED_WITHIN_S: Final = 5.0
_NAMES_AT_ONCE: Final = 4
_PORTS: Final = {"http": 80, "https": 443}
_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A webhook with its secret, which only its owner sees, and only now."""

    webhook: Webhook
    secret: str


async def check_target(url: str, policy: AddressPolicy) -> None:
    """Refuse a URL that nothing may be sent to. Opens no connection, but asks for the name.

    Raises RequestMalformed with code `webhook_url_malformed`, `webhook_unresolved`,
    `webhook_address_refused`, or `https_required`: without TLS only an allowed network is told.
    """
    parsed = _parsed(url)
    host, port = parsed.host, parsed.port or _PORTS[parsed.scheme]
    try:
        async with asyncio.timeout(_RESOLVED_WITHIN_S):
            addresses = await resolve(host, port, policy, name_threads())
    except AttemptFailed as refused:
        raise RequestMalformed(
            f"{refused.outcome.detail}.", code="webhook_address_refused"
        ) from None
    except (OSError, UnicodeError):
        raise RequestMalformed(
            f"There is no address for '{host}'.", code="webhook_unresolved"
        ) from None
    if parsed.scheme == "http" and not all(
        any(ip_address(each.sockaddr[0]) in network for network in policy.allowed_networks)
        for each in addresses
    ):
        raise RequestMalformed("A webhook's URL begins with https://.", code="https_required")


async def subscribe(
    connection: AsyncConnection,
    owner: Caller,
    wanted: tuple[str, Sequence[str]],
    sealer: Sealer,
    now: datetime,
) -> Subscribed:
    """Make a webhook; `wanted` is its URL, which has passed `check_target`, and kinds of events.

    Raises RequestMalformed with code `kinds_malformed`, Conflict above WEBHOOKS_MAX.
    """
    url, kinds = wanted
    fault = fault_in(kinds)
    if fault is not None:
        raise RequestMalformed(fault, code="kinds_malformed")
    if await subscriptions.count(connection, owner.account_id) >= WEBHOOKS_MAX:
        raise Conflict(f"An account has at most {WEBHOOKS_MAX} webhooks.", code="webhooks_too_many")
    secret = _secret()
    made = NewWebhook(uuid7(), owner.account_id, url, tuple(dict.fromkeys(kinds)), secret)
    webhook = await subscriptions.add(connection, made, sealer, now)
    # Of the URL the host: what follows it may be a secret of the target's.
    detail = {"host": httpx.URL(url).host, "kinds": list(webhook.kinds)}
    await _audit(connection, owner, "add_webhook", webhook, now, detail)
    return Subscribed(webhook, secret)


async def unsubscribe(
    connection: AsyncConnection, owner: Caller, webhook_id: UUID, now: datetime
) -> None:
    """Delete a webhook with all that waits for it. Raises NotFound."""
    webhook = await subscriptions.find(connection, webhook_id, owner.account_id, lock=True)
    await subscriptions.remove(connection, webhook_id)
    await _audit(connection, owner, "remove_webhook", webhook, now)


async def rotate_secret(
    connection: AsyncConnection,
    owner: Caller,
    webhook_id: UUID,
    overlap: timedelta,
    sealing: tuple[Sealer, datetime],
) -> Subscribed:
    """Make a new secret; for `overlap` the former one signs beside it. `sealing` ends with now.

    Raises NotFound, RequestMalformed above OVERLAP_MAX.
    """
    sealer, now = sealing
    if not timedelta(0) <= overlap <= OVERLAP_MAX:
        raise RequestMalformed(f"The overlap is at most {OVERLAP_MAX.days} days.")
    webhook = await subscriptions.find(connection, webhook_id, owner.account_id, lock=True)
    secret = _secret()
    await subscriptions.rotate(connection, webhook, secret, now + overlap, sealer)
    await _audit(connection, owner, "rotate_webhook_secret", webhook, now)
    return Subscribed(await subscriptions.find(connection, webhook_id, owner.account_id), secret)


async def enable(
    connection: AsyncConnection, owner: Caller, webhook_id: UUID, now: datetime
) -> Webhook:
    """Tell a webhook again, from now on; what it missed can be replayed. Raises NotFound."""
    webhook = await subscriptions.find(connection, webhook_id, owner.account_id, lock=True)
    if webhook.status == "enabled":
        return webhook
    await subscriptions.enable(connection, webhook_id, now)
    await _audit(connection, owner, "enable_webhook", webhook, now)
    return await subscriptions.find(connection, webhook_id, owner.account_id)


@functools.cache
def name_threads() -> Executor:
    """Return where the names of targets are resolved: apart from those of providers, which must
    not wait for what an account's name servers take their time for."""
    return ThreadPoolExecutor(_NAMES_AT_ONCE, thread_name_prefix="webhook-names")


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url) if len(url) <= URL_CHARACTERS_MAX else None
    except (httpx.InvalidURL, ValueError):
        parsed = None
    if (
        parsed is None
        or parsed.scheme not in _PORTS
        or not parsed.host
        or not 0 < (parsed.port or _PORTS[parsed.scheme]) <= _PORT_MAX
        or parsed.userinfo
        or parsed.fragment
    ):
        raise RequestMalformed(
            "A webhook's URL is https://host/path, without a user and a fragment, of at most "
            f"{URL_CHARACTERS_MAX} characters.",
            code="webhook_url_malformed",
        )
    return parsed


def _secret() -> str:
    return f"whsec_{secrets.token_urlsafe(32)}"


async def _audit(
    connection: AsyncConnection,
    owner: Caller,
    action: str,
    webhook: Webhook,
    now: datetime,
    detail: Mapping[str, object] | None = None,
) -> None:
    deed = Deed(owner.name, action, f"webhooks/{webhook.id}", detail or {})
    await audit.record(connection, deed, now)
