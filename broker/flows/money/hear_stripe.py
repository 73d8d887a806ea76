"""Hears what Stripe says of payouts after they were sent."""

from __future__ import annotations

from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import Conflict, NotFound
from broker.flows.money.send_payouts import came_back
from broker.outbound import stripe_extra

_log = structlog.get_logger()


async def hear(engine: AsyncEngine, body: bytes, proof: tuple[str, str], now: datetime) -> None:
    """Act on a webhook of Stripe's; `proof` is its signature and our secret.

    Raises NotFound while no secret is set, RequestMalformed with code `signature_invalid`.
    """
    signature, secret = proof
    if not secret:
        raise NotFound("No word of Stripe is taken here: BROKER_STRIPE_WEBHOOK_SECRET is not set.")
    reversal = stripe_extra.read_event(body, signature, secret)
    if reversal is None:
        return
    try:
        async with engine.begin() as connection:
            await came_back(connection, reversal.payout_id, reversal.reference, now)
    except (NotFound, Conflict) as error:
        _log.warning("stripe_reversal_ignored", payout=str(reversal.payout_id), why=error.detail)
