"""What `/api/earnings` and `/api/payouts` take and tell."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from broker.api.wire import Body, Reply
from broker.core.money.maturity import Trust
from broker.core.money.payout import Destination, Method, Schedule
from broker.flows.money.export_payouts import Format
from broker.flows.money.read_earnings import Earnings
from broker.store.money.payout_batches import CURRENCY, Batch
from broker.store.money.payout_terms import Terms
from broker.store.money.payouts import Item, Payout, PayoutStatus
from pricing.money import format_usd


class MaturingShown(Reply):
    """What becomes available from a moment on, if it is not taken back before."""

    at: datetime
    amount_usd: str


class EarningsShown(Reply):
    """A provider's purses. What is disputed of the available is not paid out meanwhile."""

    pending_usd: str
    available_usd: str
    disputed_usd: str
    in_transit_usd: str
    owed_usd: str
    trust: Trust
    delay_days: int
    matured_before: datetime | None
    maturing: list[MaturingShown]


class DelayWanted(Body):
    """For how many days a provider's earnings wait; null for the general rule."""

    days: int | None


class TermsWanted(Body):
    """What a provider wants; what is left out stays as it is."""

    schedule: Schedule | None = None
    threshold_usd: str | None = None
    destination: Destination | None = None
    currency: str = CURRENCY


class TermsShown(Reply):
    """What is agreed; of the destination only a hint is ever shown."""

    schedule: Schedule
    threshold_usd: str
    currency: str
    method: Method | None
    destination: str | None
    destination_since: datetime | None
    next_at: datetime | None
    delay_days: int | None


class PayoutWanted(Body):
    """Whose payout to make now: null for the caller itself, or, of an operator, all who are due."""

    provider: str | None = None


class WordGiven(Body):
    """What a bank or a service said; `reference` is its own."""

    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    reference: Annotated[str, msgspec.Meta(max_length=200)] = ""
    checked: bool = False


class ExportWanted(Body):
    """Which file to write."""

    format: Format = Format.PAIN001


class PayoutShown(Reply):
    """A payout and how far it has come."""

    id: UUID
    batch_id: UUID
    provider: str
    number: int
    method: Method
    destination: str
    amount_usd: str
    currency: str
    status: PayoutStatus
    created_at: datetime
    submitted_at: datetime | None
    reference: str


class ItemShown(Reply):
    """A part of a payout: a transfer, or what a payout kept back for the next one."""

    kind: str
    amount_usd: str
    transfer_id: UUID | None
    carried_from: UUID | None
    at: datetime | None
    reason: str


class PayoutDetail(Reply):
    """A payout with the items that it is the sum of."""

    payout: PayoutShown
    items: list[ItemShown]


class PayoutList(Reply):
    """Payouts, newest first; `cursor` asks for the page before."""

    payouts: list[PayoutShown]
    cursor: UUID | None = None


class BatchShown(Reply):
    """Payouts that go out together."""

    id: UUID
    method: Method
    author: str
    created_at: datetime
    exported_at: datetime | None


class BatchList(Reply):
    """Batches, newest first; `cursor` asks for the page before."""

    batches: list[BatchShown]
    cursor: UUID | None


def earnings_shown(earnings: Earnings) -> EarningsShown:
    """Write earnings."""
    contents = earnings.contents
    return EarningsShown(
        pending_usd=format_usd(contents.pending_nanos),
        available_usd=format_usd(contents.available_nanos),
        disputed_usd=format_usd(earnings.disputed_nanos),
        in_transit_usd=format_usd(contents.transit_nanos),
        owed_usd=format_usd(contents.owed_nanos),
        trust=earnings.trust,
        delay_days=earnings.delay.days,
        matured_before=earnings.matured_before,
        maturing=[
            MaturingShown(at=each.at, amount_usd=format_usd(each.amount_nanos))
            for each in earnings.maturing
        ],
    )


def terms_shown(terms: Terms) -> TermsShown:
    """Write terms."""
    place = terms.place
    return TermsShown(
        schedule=terms.schedule,
        threshold_usd=format_usd(terms.threshold_nanos),
        currency=CURRENCY,
        method=place.method if place else None,
        destination=place.hint if place else None,
        destination_since=place.created_at if place else None,
        next_at=terms.next_at,
        delay_days=terms.delay_days,
    )


def payout_shown(payout: Payout) -> PayoutShown:
    """Write a payout."""
    return PayoutShown(
        id=payout.id,
        batch_id=payout.batch_id,
        provider=payout.provider,
        number=payout.number,
        method=payout.place.method,
        destination=payout.place.hint,
        amount_usd=format_usd(payout.amount_nanos),
        currency=CURRENCY,
        status=payout.status,
        created_at=payout.created_at,
        submitted_at=payout.submitted_at,
        reference=payout.reference,
    )


def payout_detail(payout: Payout, items: list[Item]) -> PayoutDetail:
    """Write a payout with its items."""
    return PayoutDetail(payout=payout_shown(payout), items=[_item(each) for each in items])


def batch_shown(batch: Batch) -> BatchShown:
    """Write a batch."""
    return BatchShown(
        id=batch.id,
        method=batch.method,
        author=batch.author,
        created_at=batch.created_at,
        exported_at=batch.exported_at,
    )


def _item(item: Item) -> ItemShown:
    return ItemShown(
        kind=item.kind or ("carried" if item.carried_from else "kept_back"),
        amount_usd=format_usd(item.amount_nanos),
        transfer_id=item.transfer_id,
        carried_from=item.carried_from,
        at=item.at,
        reason=item.reason or "",
    )
