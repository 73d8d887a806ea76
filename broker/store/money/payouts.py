"""Payouts: frozen with the items that they are the sum of, and how far each has come."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.payout import Method
from broker.errors import NotFound
from broker.store.money.payout_terms import Place, destinations
from broker.store.money.purses import Purses
from broker.store.tables import accounts, table

_LIST_MAX: Final = 1_000

payouts = table(
    "payouts",
    """
    id uuid, batch_id uuid, provider_id uuid, number integer, destination_id uuid,
    amount_nanos bigint, status text, created_at timestamptz, submitted_at timestamptz,
    reference text
    """,
)
_TAKE_ITEMS = text("""
INSERT INTO payout_items (payout_id, transfer_id, carried_from, amount_nanos)
SELECT CAST(:payout AS uuid), t.id, NULL::uuid, t.amount_nanos FROM transfers t
 WHERE t.credit_id = :available
   AND NOT EXISTS (SELECT 1 FROM payout_items i WHERE i.transfer_id = t.id)
UNION ALL
SELECT CAST(:payout AS uuid), t.id, NULL, -t.amount_nanos FROM transfers t
 WHERE t.debit_id = :available AND t.kind <> 'payout'
   AND NOT EXISTS (SELECT 1 FROM payout_items i WHERE i.transfer_id = t.id)
UNION ALL
SELECT CAST(:payout AS uuid), NULL, p.id, -k.amount_nanos FROM payouts p
  JOIN payout_items k ON k.payout_id = p.id AND k.transfer_id IS NULL AND k.carried_from IS NULL
 WHERE p.provider_id = :provider
   AND NOT EXISTS (SELECT 1 FROM payout_items c WHERE c.carried_from = p.id)
RETURNING amount_nanos
""")
_KEEP_BACK = text(
    "INSERT INTO payout_items (payout_id, amount_nanos) VALUES (:payout, -CAST(:kept AS bigint))"
)
_ITEMS = text("""
SELECT i.transfer_id, i.carried_from, i.amount_nanos, t.kind, t.created_at, t.reason
  FROM payout_items i LEFT JOIN transfers t ON t.id = i.transfer_id
 WHERE i.payout_id = :payout
 ORDER BY t.created_at NULLS LAST, i.transfer_id, i.carried_from
""")


class PayoutStatus(enum.StrEnum):
    """How far a payout has come; it goes from OPEN to SENT or FAILED, from SENT to RETURNED."""

    OPEN = "open"
    SENT = "sent"
    FAILED = "failed"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True)
class Payout:
    """One sum for one provider; `number` counts its payouts, `provider` is its name."""

    id: UUID
    batch_id: UUID
    provider_id: UUID
    provider: str
    number: int
    place: Place
    amount_nanos: int
    status: PayoutStatus
    created_at: datetime
    submitted_at: datetime | None
    reference: str


@dataclass(frozen=True, slots=True)
class Item:
    """A part of a payout, signed: a transfer, what an earlier payout kept back, or what it does."""

    transfer_id: UUID | None
    carried_from: UUID | None
    amount_nanos: int
    kind: str | None
    at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which payouts, newest first, before the id `before`."""

    provider_id: UUID | None = None
    status: PayoutStatus | None = None
    batch_id: UUID | None = None
    before: UUID | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Draft:
    """A payout to be frozen: how much of what is in `purses`, to which place."""

    batch_id: UUID
    purses: Purses
    place: Place
    amount_nanos: int
    available_nanos: int
    """All that is there; what is not paid is kept back."""
    id: UUID = field(default_factory=uuid7)


async def freeze(connection: AsyncConnection, draft: Draft, now: datetime) -> Payout:
    """Write a payout with all its items; moving the money is the caller's, who holds the locks."""
    provider_id = draft.purses.provider_id
    number = select(func.coalesce(func.max(payouts.c.number), 0) + 1).where(
        payouts.c.provider_id == provider_id
    )
    await connection.execute(
        insert(payouts).values(
            id=draft.id,
            batch_id=draft.batch_id,
            provider_id=provider_id,
            number=number.scalar_subquery(),
            destination_id=draft.place.id,
            amount_nanos=draft.amount_nanos,
            status=PayoutStatus.OPEN.value,
            created_at=now,
        )
    )
    values = {
        "payout": draft.id,
        "provider": provider_id,
        "available": draft.purses.available,
    }
    taken = sum((await connection.execute(_TAKE_ITEMS, values)).scalars())
    assert taken == draft.available_nanos, "what is available is what no payout has yet"
    if taken > draft.amount_nanos:
        kept = {"payout": draft.id, "kept": taken - draft.amount_nanos}
        await connection.execute(_KEEP_BACK, kept)
    return await find(connection, draft.id)


async def find(connection: AsyncConnection, payout_id: UUID) -> Payout:
    """Return a payout. Raises NotFound."""
    return await _one(connection, _payouts().where(payouts.c.id == payout_id))


async def lock(connection: AsyncConnection, payout_id: UUID) -> Payout:
    """Lock a payout and return it. Raises NotFound."""
    query = _payouts().where(payouts.c.id == payout_id)
    # Not its key: a payout made meanwhile refers to this one for what it kept back.
    return await _one(connection, query.with_for_update(of=payouts, key_share=True))


async def list_payouts(connection: AsyncConnection, wanted: Wanted) -> list[Payout]:
    """Return up to `wanted.limit` (at most 1,000) payouts, newest first."""
    query = _payouts().order_by(payouts.c.id.desc()).limit(min(wanted.limit, _LIST_MAX))
    if wanted.provider_id is not None:
        query = query.where(payouts.c.provider_id == wanted.provider_id)
    if wanted.status is not None:
        query = query.where(payouts.c.status == wanted.status.value)
    if wanted.batch_id is not None:
        query = query.where(payouts.c.batch_id == wanted.batch_id)
    if wanted.before is not None:
        query = query.where(payouts.c.id < wanted.before)
    return [_payout(row) for row in await connection.execute(query)]


async def items_of(connection: AsyncConnection, payout_id: UUID) -> list[Item]:
    """Return what a payout is the sum of, oldest first."""
    rows = await connection.execute(_ITEMS, {"payout": payout_id})
    return [
        Item(
            row.transfer_id,
            row.carried_from,
            row.amount_nanos,
            row.kind,
            row.created_at,
            row.reason,
        )
        for row in rows
    ]


async def set_status(
    connection: AsyncConnection, payout_id: UUID, status: PayoutStatus, reference: str = ""
) -> None:
    """Note how far a payout has come; `reference` is the service's own, kept where it is empty."""
    values = {"status": status.value} | ({"reference": reference} if reference else {})
    await connection.execute(update(payouts).where(payouts.c.id == payout_id).values(**values))


async def mark_submitted(connection: AsyncConnection, payout_id: UUID, now: datetime) -> None:
    """Note that a service is about to be asked to pay."""
    await connection.execute(
        update(payouts)
        .where(payouts.c.id == payout_id, payouts.c.submitted_at.is_(None))
        .values(submitted_at=now)
    )


async def to_send(connection: AsyncConnection, method: Method) -> list[UUID]:
    """Return the open payouts that go out by `method`, oldest first."""
    query = (
        select(payouts.c.id)
        .join(destinations, destinations.c.id == payouts.c.destination_id)
        .where(payouts.c.status == PayoutStatus.OPEN.value, destinations.c.method == method.value)
        .order_by(payouts.c.id)
    )
    return list((await connection.execute(query)).scalars())


def _payouts() -> Select[Any]:
    place = (
        destinations.c.method,
        destinations.c.hint,
        destinations.c.created_at.label("placed_at"),
    )
    known = payouts.join(accounts, accounts.c.id == payouts.c.provider_id).join(
        destinations, destinations.c.id == payouts.c.destination_id
    )
    return select(*payouts.c, accounts.c.name.label("provider"), *place).select_from(known)


async def _one(connection: AsyncConnection, query: Select[Any]) -> Payout:
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("There is no such payout.")
    return _payout(row)


def _payout(row: Row[Any]) -> Payout:
    return Payout(
        id=row.id,
        batch_id=row.batch_id,
        provider_id=row.provider_id,
        provider=row.provider,
        number=row.number,
        place=Place(row.destination_id, Method(row.method), row.hint, row.placed_at),
        amount_nanos=row.amount_nanos,
        status=PayoutStatus(row.status),
        created_at=row.created_at,
        submitted_at=row.submitted_at,
        reference=row.reference,
    )
