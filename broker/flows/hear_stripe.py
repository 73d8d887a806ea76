"""Opens the adapter for Stripe, and hears what Stripe says of payouts later."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import Conflict, NotFound, SettingInvalid
from broker.flows.send_payouts import came_back

if TYPE_CHECKING:
    from broker.outbound.stripe_connect import StripeConnect

_MISSING = "Payouts through Stripe need its package: pip install 'model-broker[stripe]'."
_log = structlog.get_logger()


def open_stripe(key: str, transport: httpx.AsyncBaseTransport, url: str = "") -> StripeConnect:
    """Return the adapter. Raises SettingInvalid where the `stripe` package is missing."""
    # Imported late: the package is an extra, and takes most of a second.
    try:
        from broker.outbound.stripe_connect import URL, StripeConnect
    except ImportError:
        raise SettingInvalid(_MISSING) from None
    return StripeConnect(key, transport, url or URL)


async def hear(engine: AsyncEngine, body: bytes, proof: tuple[str, str], now: datetime) -> None:
    """Act on a webhook of Stripe's; `proof` is its signature and our secret.

    Raises NotFound while no secret is set, RequestMalformed with code `signature_invalid`.
    """
    signature, secret = proof
    if not secret:
        raise NotFound(
            "No webhooks of Stripe are taken here: BROKER_STRIPE_WEBHOOK_SECRET is empty."
        )
    try:
        from broker.outbound.stripe_connect import read_event
    except ImportError:
        raise SettingInvalid(_MISSING) from None
    reversal = read_event(body, signature, secret)
    if reversal is None:
        return
    try:
        async with engine.begin() as connection:
            await came_back(connection, reversal.payout_id, reversal.reference, now)
    except (NotFound, Conflict) as error:
        _log.warning("stripe_reversal_ignored", payout=str(reversal.payout_id), why=error.detail)
