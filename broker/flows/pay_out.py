"""Makes payouts: freezes what is available of those who are due, and moves it on its way out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.payout import Method, whole_cents
from broker.errors import Conflict, NotFound
from broker.flows.authenticate import Caller
from broker.flows.mature import recover
from broker.flows.read_payouts import provider_named
from broker.store import audit, events, maturity, payouts, purses, recourse, transfers
from broker.store import payout_batches as batch_store
from broker.store import payout_terms as term_store
from broker.store.accounts import Role
from broker.store.events import Event
from broker.store.payout_batches import Batch
from broker.store.payout_terms import Terms
from broker.store.payouts import Draft, Payout
from broker.store.purses import Purses
from broker.store.transfers import Transfer, TransferKind
from pricing.money import format_usd

BATCH_MAX: Final = 100
"""Payouts made in one transaction, so that the locks of their purses are short."""
REST: Final = timedelta(days=1)
"""A new destination waits so long for its first payout, so that a stolen key is no stolen money."""


@dataclass(frozen=True, slots=True)
class Run:
    """The payouts that were made, and how many providers were due."""

    made: list[Payout]
    due: int


@dataclass(slots=True)
class _Round:
    """One run: who asked for it and when, and the batches that it has opened."""

    author: str
    now: datetime
    batches: dict[Method, Batch] = field(default_factory=dict)


async def ask(
    connection: AsyncConnection, caller: Caller, provider: str | None, now: datetime
) -> list[Payout]:
    """Make the payouts that a caller asks for; return them.

    A provider asks for its own, an operator for a provider's by name, or without a name for those
    of all who are due. Raises NotFound, and Conflict as `pay_out` does.
    """
    if caller.role is Role.PROVIDER:
        if provider not in (None, caller.name):
            raise NotFound("There is no such provider.")
        return [await pay_out(connection, caller.name, caller.account_id, now)]
    if provider is None:
        return (await pay_out_due(connection, caller.name, now)).made
    whose = await provider_named(connection, provider)
    return [await pay_out(connection, caller.name, whose, now)]


async def pay_out_due(connection: AsyncConnection, author: str, now: datetime) -> Run:
    """Make the payouts of up to 100 providers whose schedule says so.

    Who has too little, or nowhere to send it yet, waits for the next time. Another run at the same
    moment takes others.
    """
    made = []
    run = _Round(author, now)
    due = await term_store.lock_due(connection, now, BATCH_MAX)
    held = await purses.purses_of(connection, [each.provider_id for each in due])
    await purses.lock(connection, held.values())
    for terms in due:
        if _is_rested(terms, now):
            payout = await _freeze(connection, run, terms, held[terms.provider_id])
            made += [payout] if payout else []
        await term_store.set_next(connection, terms, now)
    await _audit(connection, run, made)
    return Run(made, len(due))


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
    if not _is_rested(terms, now):
        first = (terms.place.created_at + REST).isoformat(timespec="seconds")
        raise Conflict(
            f"The destination is new: it can be paid to from {first}.",
            code="payout_destination_resting",
        )
    run = _Round(author, now)
    payout = await _freeze(connection, run, replace(terms, threshold_nanos=0), held)
    if payout is None:
        raise Conflict(
            "Less than a cent is available that is neither owed nor disputed.",
            code="payout_nothing_due",
        )
    await _audit(connection, run, [payout])
    return payout


def _is_rested(terms: Terms, now: datetime) -> bool:
    return terms.place is not None and terms.place.created_at + REST <= now


async def _freeze(
    connection: AsyncConnection,
    run: _Round,
    terms: Terms,
    held: Purses,
) -> Payout | None:
    """Make a payout of what can be paid; None when that is nothing, or under the threshold."""
    await recover(connection, held, run.now)
    available_nanos = (await purses.look_into(connection, held)).available_nanos
    watermark = await recourse.matured_before(connection, held.provider_id)
    free_nanos = available_nanos - await maturity.disputed_nanos(connection, held, watermark)
    amount_nanos = whole_cents(free_nanos)
    if amount_nanos == 0 or free_nanos < terms.threshold_nanos:
        return None
    assert terms.place is not None, "who has no place is not asked"
    batch = await _batch(connection, run, terms.place.method)
    draft = Draft(batch.id, held, terms.place, amount_nanos, available_nanos)
    payout = await payouts.freeze(connection, draft, run.now)
    await _move(connection, run, payout, held)
    return payout


async def _batch(connection: AsyncConnection, run: _Round, method: Method) -> Batch:
    """Open a batch for the way that a payout goes, unless this run has one."""
    if method not in run.batches:
        run.batches[method] = Batch(uuid7(), method, run.author, run.now)
        await batch_store.open_batch(connection, run.batches[method])
    return run.batches[method]


async def _move(connection: AsyncConnection, run: _Round, payout: Payout, held: Purses) -> None:
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


async def _audit(connection: AsyncConnection, run: _Round, made: list[Payout]) -> None:
    for batch in run.batches.values():
        ours = [each for each in made if each.batch_id == batch.id]
        detail = {
            "payouts": len(ours),
            "amount_usd": format_usd(sum(each.amount_nanos for each in ours)),
        }
        target = f"payout_batches/{batch.id}"
        await audit.record(connection, audit.Deed(run.author, "pay_out", target, detail), run.now)
