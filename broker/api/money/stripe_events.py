"""`/api/stripe-events`: what Stripe tells of payouts, believed for its signature alone."""

from __future__ import annotations

from typing import Annotated

from litestar import post
from litestar.params import HeaderParameter

from broker.api.callers import OPEN
from broker.api.parts import CallerRequest, GivenParts, GivenTime
from broker.flows.money.hear_stripe import hear

Signature = Annotated[str, HeaderParameter(name="Stripe-Signature", max_length=4_096)]


@post(
    "/stripe-events",
    opt={OPEN: True},
    status_code=204,
    tags=["Payouts"],
    summary="Hear of reversals",
)
async def stripe_events(
    request: CallerRequest, parts: GivenParts, now: GivenTime, signature: Signature
) -> None:
    """Answer 2xx to all that Stripe has signed, or it would send it for days."""
    secret = parts.settings.payouts.stripe_webhook_secret
    await hear(parts.engine, await request.body(), (signature, secret), now)
