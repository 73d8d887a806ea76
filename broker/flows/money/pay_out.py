"""Makes a payout: freezes what is available of a provider, and moves it on its way out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.payout import Method, whole_cents
from broker.errors import Conflict, NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.money.mature import recover
from broker.flows.money.read_payouts import provider_named
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.books import transfers
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.money import maturity, payouts, purses, recourse
from broker.store.money import payout_batches as batch_store
from broker.store.money import payout_terms as term_store
from broker.store.money.payout_batches import Batch
from broker.store.money.payout_terms import Terms
from broker.store.money.payouts import Draft, Payout
from broker.store.money.purses import Purses
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import format_usd

REST: Final = timedelta(days=1)
"""A new destination waits so long for its first payout, so that a stolen key is no stolen money."""


@dataclass(slots=True)
class Round:
    """One run: who asked for it and when, and the batch that it goes on filling for each way."""

    author: str
    now: datetime
    batches: dict[Method, UUID] = field(default_factory=dict)


async def ask(
    connection: AsyncConnection, caller: Caller, provider: str | None, now: datetime
) -> Payout:
    """Make the payout that a caller asks for, a provider its own, an operator a provider's by name.

    Raises NotFound, and Conflict as `pay_out` does.
    """
    if caller.role is Role.PROVIDER:
        if provider not in (None, caller.name):
            raise NotFound("There is no such provider.")
        return await pay_out(connection, caller.name, caller.account_id, now)
    whose = await provider_named(connection, provider or "")
    return await pay_out(connection, caller.name, whose, now)


async def pay_out(
    connection: AsyncConnection, author: str, provider_id: UUID, now: datetime
) -> Payout:
    """Make one provider's payout now, whatever its schedule and threshold.

    Raises NotFound, and Conflict with code `payout_destination_missing`,
    `payout_destination_resting` or `payout_nothing_due`.
    """
    terms = await term_store.read_terms(connection, provider_id, lock=True)
    held = await purses.purse_of(connection, provider_id)
    await purses.lock(connection, [held])
    if terms.place is None:
        raise Conflict("No bank or Stripe account was named.", code="payout_destination_missing")
    if not is_rested(terms, now):
        first = f"{terms.place.created_at + REST:%Y-%m-%d %H:%M:%S} UTC"
        raise Conflict(
            f"The destination is new: it can be paid to from {first}.",
            code="payout_destination_resting",
        )
    whatever = replace(terms, threshold_nanos=0)
    payout = await freeze(connection, Round(author, now), whatever, held)
    if payout is None:
        raise Conflict(
            "Less than a cent is available that is neither owed nor disputed.",
            code="payout_nothing_due",
        )
    return payout


def is_rested(terms: Terms, now: datetime) -> bool:
    """Return whether a provider has named a place, long enough ago."""
    return terms.place is not None and terms.place.created_at + REST <= now


async def freeze(
    connection: AsyncConnection, run: Round, terms: Terms, held: Purses
) -> Payout | None:
    """Make a payout of what can be paid; None when that is nothing, or under the threshold.

    The terms and the purses must be locked.
    """
    await recover(connection, held, run.now)
    available_nanos = (await purses.look_into(connection, held)).available_nanos
    watermark = await recourse.matured_before(connection, held.provider_id)
    free_nanos = available_nanos - await maturity.disputed_nanos(connection, held, watermark)
    amount_nanos = whole_cents(free_nanos)
    if amount_nanos == 0 or free_nanos < terms.threshold_nanos:
        return None
    assert terms.place is not None, "who has no place is not asked"
    batch_id = await _batch(connection, run, terms.place.method)
    draft = Draft(batch_id, held, terms.place, amount_nanos, available_nanos)
    payout = await payouts.freeze(connection, draft, run.now)
    await _move(connection, run, payout, held)
    await _audit(connection, run, payout)
    return payout


async def _batch(connection: AsyncConnection, run: Round, method: Method) -> UUID:
    """Return the run's batch for the way that a payout goes; a new one where it has none, or one
    that has been exported meanwhile or undone with the payout that opened it."""
    former = run.batches.get(method)
    if former is not None and await batch_store.lock_unexported(connection, former):
        return former
    batch = Batch(uuid7(), method, run.author, run.now)
    await batch_store.open_batch(connection, batch)
    run.batches[method] = batch.id
    return batch.id


async def _move(connection: AsyncConnection, run: Round, payout: Payout, held: Purses) -> None:
    transfer = Transfer(
        id=uuid7(),
        debit=held.available,
        credit=held.transit,
        amount_nanos=payout.amount_nanos,
        kind=TransferKind.PAYOUT,
        reason=f"payout {payout.number}",
        author=run.author,
        created_at=run.now,
        about_id=payout.id,
    )
    await transfers.post(connection, transfer)
    await events.tell(connection, told("payout.created", payout), run.now)


def told(kind: str, payout: Payout, reason: str = "") -> Event:
    """Return the event that tells of a payout."""
    payload = {
        "payout": str(payout.id),
        "number": payout.number,
        "amount_usd": format_usd(payout.amount_nanos),
        "destination": payout.place.hint,
    }
    extra = {"reason": reason} if reason else {}
    return Event(kind, f"payouts/{payout.id}", payout.provider_id, payload | extra)


async def _audit(connection: AsyncConnection, run: Round, payout: Payout) -> None:
    detail = {
        "provider": payout.provider,
        "amount_usd": format_usd(payout.amount_nanos),
        "batch": str(payout.batch_id),
    }
    deed = audit.Deed(run.author, "pay_out", f"payouts/{payout.id}", detail)
    await audit.record(connection, deed, run.now)
