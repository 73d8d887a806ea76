"""Invoices: each closed month of an account, numbered, told once and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.store.access.accounts import LEDGER_KINDS
from broker.store.books.credit_notes import credit_notes
from broker.store.books.statement_totals import Whose, other_transfers
from broker.store.books.statements import Span
from broker.store.tables import accounts, table

LIST_MAX: Final = 1_000

invoices = table(
    "invoices",
    """
    id uuid, account_id uuid, number integer, month date, opening_nanos bigint,
    closing_nanos bigint, content jsonb, issued_at timestamptz
    """,
)


@dataclass(frozen=True, slots=True)
class Invoice:
    """A month as it was told; `content` is JSON. Without a number the month is still open."""

    account_id: UUID
    month: date
    number: int | None
    opening_nanos: int
    closing_nanos: int
    content: dict[str, Any]
    issued_at: datetime | None


@dataclass(frozen=True, slots=True)
class Moved:
    """Transfers of one kind on one day of UTC, signed nano-dollars."""

    day: date
    kind: str
    count: int
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class Noted:
    """The credit notes of a consumer's month: how many, the first and the last number."""

    count: int
    first: int | None
    last: int | None


async def serialize(connection: AsyncConnection, account_id: UUID) -> None:
    """Be the only one to issue this account's invoices until the transaction ends."""
    query = sa.select(accounts.c.id).where(accounts.c.id == account_id)
    await connection.execute(query.with_for_update(key_share=True))


async def find(connection: AsyncConnection, account_id: UUID, month: date) -> Invoice | None:
    """Return an issued invoice; `month` is its first day."""
    query = _of(account_id).where(invoices.c.month == month)
    row = (await connection.execute(query)).first()
    return None if row is None else _invoice(row)


async def last(connection: AsyncConnection, account_id: UUID) -> Invoice | None:
    """Return the latest issued invoice."""
    row = (await connection.execute(_of(account_id).limit(1))).first()
    return None if row is None else _invoice(row)


async def list_invoices(connection: AsyncConnection, account_id: UUID) -> list[Invoice]:
    """Return the issued invoices, at most 1,000, newest first."""
    return [_invoice(row) for row in await connection.execute(_of(account_id).limit(LIST_MAX))]


async def insert(connection: AsyncConnection, invoice: Invoice) -> None:
    """Issue an invoice."""
    await connection.execute(
        sa.insert(invoices).values(
            id=uuid7(),
            account_id=invoice.account_id,
            number=invoice.number,
            month=invoice.month,
            opening_nanos=invoice.opening_nanos,
            closing_nanos=invoice.closing_nanos,
            content=invoice.content,
            issued_at=invoice.issued_at,
        )
    )


async def accounts_without(
    connection: AsyncConnection, month: date, ends: datetime, limit: int
) -> list[UUID]:
    """Return up to `limit` accounts with a balance that have no invoice of a month; `ends` is the
    month's end, before which they were opened."""
    issued = sa.select(invoices.c.account_id).where(invoices.c.month == month)
    query = (
        sa.select(accounts.c.id)
        .where(
            accounts.c.role.in_([role.value for role in LEDGER_KINDS]),
            accounts.c.created_at < ends,
            accounts.c.id.not_in(issued),
        )
        .order_by(accounts.c.id)
        .limit(limit)
    )
    return list((await connection.execute(query)).scalars())


async def moved_by_kind(connection: AsyncConnection, whose: Whose, span: Span) -> list[Moved]:
    """Return what was neither calls nor credit notes, by day and kind."""
    entries = sa.union_all(*other_transfers(whose, span)).subquery()
    day = sa.func.date(sa.func.timezone("UTC", entries.c.at))
    query = (
        sa.select(
            day.label("day"),
            entries.c.transfer_kind,
            sa.func.count().label("moves"),
            sa.func.sum(entries.c.amount_nanos).label("amount_nanos"),
        )
        .group_by(day, entries.c.transfer_kind)
        .order_by(day, entries.c.transfer_kind)
    )
    return [
        Moved(row.day, row.transfer_kind, row.moves, int(row.amount_nanos))
        for row in await connection.execute(query)
    ]


async def noted(connection: AsyncConnection, account_id: UUID, span: Span) -> Noted:
    """Return which credit notes a consumer got."""
    note = credit_notes.c
    query = sa.select(sa.func.count(), sa.func.min(note.number), sa.func.max(note.number)).where(
        note.account_id == account_id, note.created_at >= span.since, note.created_at < span.until
    )
    return Noted(*(await connection.execute(query)).one())


def _of(account_id: UUID) -> sa.Select[Any]:
    query = sa.select(invoices).where(invoices.c.account_id == account_id)
    return query.order_by(invoices.c.month.desc())


def _invoice(row: sa.Row[Any]) -> Invoice:
    return Invoice(
        account_id=row.account_id,
        month=row.month,
        number=row.number,
        opening_nanos=row.opening_nanos,
        closing_nanos=row.closing_nanos,
        content=row.content,
        issued_at=row.issued_at,
    )
