"""Takes down what a provider wants of its payouts, and how long an operator lets its money wait."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.money.payout import Bank, Destination, Method, Schedule, Stripe, method_of
from broker.errors import RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.money.read_payouts import provider_named
from broker.outbound import bank_account
from broker.settings import Payouts
from broker.store.access import audit
from broker.store.money import payout_terms as term_store
from broker.store.money.payout_batches import CURRENCY
from broker.store.money.payout_terms import Terms
from broker.store.sealing import Sealer
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import MAX_AMOUNT_NANOS, format_usd

DELAY_DAYS_MAX = 365
_STRIPE_ACCOUNT = re.compile(r"acct_[A-Za-z0-9]{8,64}")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a provider wants; None leaves what was."""

    schedule: Schedule | None = None
    threshold_nanos: int | None = None
    destination: Destination | None = None
    currency: str = CURRENCY
    offered: frozenset[Method] = frozenset(Method)
    """The ways that the broker can pay by."""


def offered(settings: Payouts) -> frozenset[Method]:
    """Return the ways that a broker with these settings can pay by; a bank needs no setting."""
    return frozenset(Method) if settings.stripe_key else frozenset({Method.BANK})


async def read(engine: AsyncEngine, provider_id: UUID) -> Terms:
    """Return a provider's terms, the defaults where it has said nothing."""
    async with engine.connect() as connection:
        return await term_store.read_terms(connection, provider_id)


async def wish(
    connection: AsyncConnection, provider: Caller, wishes: Wishes, sealer: Sealer, now: datetime
) -> Terms:
    """Take a provider's wishes down; return its terms.

    Raises RequestMalformed with code `currency_unknown`, `amount_out_of_bounds`,
    `method_not_offered`, `holder_invalid`, `iban_invalid`, `bic_invalid` or
    `stripe_account_invalid`.
    """
    if wishes.currency != CURRENCY:
        raise RequestMalformed(
            f"Payouts are in {CURRENCY}, not in '{wishes.currency}'.", code="currency_unknown"
        )
    before = await term_store.read_terms(connection, provider.account_id, lock=True)
    if wishes.schedule is not None or wishes.threshold_nanos is not None:
        await _set_wishes(connection, before, wishes, now)
    if wishes.destination is not None:
        destination = _checked(wishes.destination, wishes.offered)
        await term_store.set_place(connection, provider.account_id, destination, sealer, now)
    after = await term_store.read_terms(connection, provider.account_id)
    if after != before:
        await _tell(connection, provider, (before, after), now)
    return after


async def set_delay(
    connection: AsyncConnection, author: Caller, provider: str, days: int | None, now: datetime
) -> Terms:
    """Let a provider's earnings wait for `days`, None for the general rule; return its terms.

    Raises NotFound, RequestMalformed with code `delay_out_of_bounds`.
    """
    if days is not None and not 0 <= days <= DELAY_DAYS_MAX:
        raise RequestMalformed(
            f"Earnings wait from 0 to {DELAY_DAYS_MAX} days.", code="delay_out_of_bounds"
        )
    provider_id = await provider_named(connection, provider)
    await term_store.set_delay(connection, provider_id, days, now)
    deed = audit.Deed(author.name, "set_maturity", f"accounts/{provider}", {"days": days})
    await audit.record(connection, deed, now)
    return await term_store.read_terms(connection, provider_id)


async def _set_wishes(
    connection: AsyncConnection, before: Terms, wishes: Wishes, now: datetime
) -> None:
    threshold_nanos = before.threshold_nanos
    if wishes.threshold_nanos is not None:
        threshold_nanos = wishes.threshold_nanos
    if not 0 <= threshold_nanos <= MAX_AMOUNT_NANOS:
        raise RequestMalformed(
            f"A threshold is from 0 to {format_usd(MAX_AMOUNT_NANOS)} USD.",
            code="amount_out_of_bounds",
        )
    chosen = (wishes.schedule or before.schedule, threshold_nanos)
    await term_store.set_wishes(connection, before.provider_id, chosen, now)


def _checked(destination: Destination, offered: frozenset[Method]) -> Destination:
    method = method_of(destination)
    if method not in offered:
        raise RequestMalformed(
            f"This broker does not pay by '{method.value}'.", code="method_not_offered"
        )
    if isinstance(destination, Bank):
        return bank_account.checked(destination)
    if not _STRIPE_ACCOUNT.fullmatch(destination.account):
        raise RequestMalformed(
            "A Stripe account looks like acct_1a2b3c4d5e6f7g8h.", code="stripe_account_invalid"
        )
    return Stripe(destination.account)


async def _tell(
    connection: AsyncConnection, provider: Caller, change: tuple[Terms, Terms], now: datetime
) -> None:
    before, after = change
    target = f"accounts/{provider.account_id}"
    detail = {
        "schedule": after.schedule.value,
        "threshold_usd": format_usd(after.threshold_nanos),
        "destination": after.place.hint if after.place else None,
    }
    deed = audit.Deed(provider.name, "set_payout_terms", f"accounts/{provider.name}", detail)
    await audit.record(connection, deed, now)
    if after.place != before.place:
        told = Event("payout.destination_changed", target, provider.account_id, detail)
        await events.tell(connection, told, now)
