"""Balances and statements, read from the ledger's immutable records."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import balances, settlement_lines, settlements, transfers

Place = tuple[datetime, UUID]
"""Where a statement goes on: the last entry's time and source."""


_NO_REASON: ColumnElement[str] = sa.literal("")


class EntryKind(enum.StrEnum):
    """What moved the balance."""

    CHARGE = "charge"
    EARNING = "earning"
    TOPUP = "topup"
    ADJUSTMENT = "adjustment"
    PAYOUT = "payout"
    PAYOUT_SENT = "payout_sent"
    PAYOUT_FAILED = "payout_failed"
    PAYOUT_RETURNED = "payout_returned"
    MATURITY = "maturity"
    RECOVERY = "recovery"
    REFUND = "refund"
    SLA_CREDIT = "sla_credit"
    EVALUATION = "evaluation"


@dataclass(frozen=True, slots=True)
class Balance:
    """Nano-dollars; what is held belongs to calls under way."""

    posted_nanos: int
    held_nanos: int

    @property
    def available_nanos(self) -> int:
        """What can still be held."""
        return self.posted_nanos - self.held_nanos


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement of a balance, signed; `source` is the call or the transfer."""

    at: datetime
    source: UUID
    kind: EntryKind
    amount_nanos: int
    reason: str


@dataclass(frozen=True, slots=True)
class Span:
    """Which entries: `since` included, `until` not, only those before `place`."""

    since: datetime | None = None
    until: datetime | None = None
    place: Place | None = None
    limit: int = 100


async def read_balance(connection: AsyncConnection, ledger_account: UUID) -> Balance:
    """Return the balance of a ledger account."""
    row = (
        await connection.execute(
            sa.select(balances.c.posted_nanos, balances.c.held_nanos).where(
                balances.c.ledger_account_id == ledger_account
            )
        )
    ).one()
    return Balance(row.posted_nanos, row.held_nanos)


async def read_entries(
    connection: AsyncConnection, purses: Sequence[UUID], span: Span
) -> list[Entry]:
    """Return up to `span.limit` entries, newest first.

    Of several ledger accounts, only what went into or out of all of them together.
    """
    # Each source gives its own newest, so that no index is read further than the page.
    newest = [
        sa.select(_page(rows, span))
        for each in purses
        for rows in (
            _charges(each),
            _earnings(each),
            _incoming(each).where(transfers.c.debit_id.not_in(purses)),
            _outgoing(each).where(transfers.c.credit_id.not_in(purses)),
        )
    ]
    entries = sa.union_all(*newest).subquery()
    query = sa.select(entries).order_by(entries.c.at.desc(), entries.c.source.desc())
    rows = await connection.execute(query.limit(span.limit))
    return [
        Entry(row.at, row.source, EntryKind(row.kind), row.amount_nanos, row.reason) for row in rows
    ]


def _page(rows: Select[Any], span: Span) -> sa.Subquery:
    inner = rows.subquery()
    query = sa.select(inner).order_by(inner.c.at.desc(), inner.c.source.desc()).limit(span.limit)
    if span.since is not None:
        query = query.where(inner.c.at >= span.since)
    if span.until is not None:
        query = query.where(inner.c.at < span.until)
    if span.place is not None:
        query = query.where(sa.tuple_(inner.c.at, inner.c.source) < sa.tuple_(*span.place))
    return query.subquery()


def _charges(ledger_account: UUID) -> Select[Any]:
    return _entries(
        settlements.c.settled_at,
        settlements.c.call_id,
        sa.literal(EntryKind.CHARGE.value),
        -settlements.c.charge_nanos,
        _NO_REASON,
    ).where(settlements.c.ledger_account_id == ledger_account, settlements.c.charge_nanos > 0)


def _earnings(ledger_account: UUID) -> Select[Any]:
    """One entry a call, though several attempts of it may have earned."""
    lines = settlement_lines.c
    return (
        _entries(
            lines.settled_at,
            lines.call_id,
            sa.literal(EntryKind.EARNING.value),
            sa.cast(sa.func.sum(lines.earnings_nanos), sa.BigInteger),
            _NO_REASON,
        )
        .where(lines.payee_id == ledger_account)
        .group_by(lines.settled_at, lines.call_id)
    )


def _incoming(ledger_account: UUID) -> Select[Any]:
    return _entries(
        transfers.c.created_at, transfers.c.id, transfers.c.kind, transfers.c.amount_nanos,
        transfers.c.reason,
    ).where(transfers.c.credit_id == ledger_account)  # fmt: skip


def _outgoing(ledger_account: UUID) -> Select[Any]:
    return _entries(
        transfers.c.created_at, transfers.c.id, transfers.c.kind, -transfers.c.amount_nanos,
        transfers.c.reason,
    ).where(transfers.c.debit_id == ledger_account)  # fmt: skip


def _entries(*columns: ColumnElement[Any]) -> Select[Any]:
    names = ("at", "source", "kind", "amount_nanos", "reason")
    labelled = [column.label(name) for column, name in zip(columns, names, strict=True)]
    return sa.select(*labelled)
