"""Balances and statements, read from the ledger's immutable records."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
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


ROWS_AT_ONCE: Final = 200
"""A few milliseconds of the processor, as a table, which may have a thousand times as many."""
_NOTED = (EntryKind.REFUND.value, EntryKind.SLA_CREDIT.value)


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
    """One movement of a balance, signed; `source` is the call, the transfer or the credit note.

    `call_id` is the call that it is about, None where it is about none.
    """

    at: datetime
    source: UUID
    kind: EntryKind
    amount_nanos: int
    reason: str
    call_id: UUID | None = None


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
    rows = await connection.execute(_newest(purses, span).limit(span.limit))
    return [_entry(row) for row in rows]


async def exceed(
    connection: AsyncConnection, purses: Sequence[UUID], span: Span, most: int
) -> bool:
    """Return whether a span has more than `most` entries, whatever its limit; no more is read than
    it takes to know."""
    wanted = replace(span, place=None, limit=most + 1)
    parts = [_within_limit(_charges(each), wanted) for each in purses]
    parts += [sa.select(_last_calls(each, wanted)) for each in purses]
    parts += [_within_limit(each, wanted) for each in _transfers(purses)]
    found = [sa.select(sa.literal(1)).select_from(each.subquery()) for each in parts]
    enough = sa.union_all(*found).limit(most + 1).subquery()
    count = await connection.scalar(sa.select(sa.func.count()).select_from(enough))
    return (count or 0) > most


async def stream_entries(
    connection: AsyncConnection, purses: Sequence[UUID], span: Span
) -> AsyncIterator[Entry]:
    """Yield all entries of a span, oldest first, whatever its limit; read as they are asked for."""
    sources = [rows.subquery() for rows in _sources(purses)]
    inside = [_within(sa.select(each), each.c.at, span) for each in sources]
    entries = sa.union_all(*inside).subquery()
    query = sa.select(entries).order_by(entries.c.at, entries.c.source)
    async with connection.stream(query, execution_options={"yield_per": ROWS_AT_ONCE}) as rows:
        async for part in rows.partitions():
            for row in part:
                yield _entry(row)


def _newest(purses: Sequence[UUID], span: Span) -> Select[Any]:
    # Each source gives its own newest, so that no index is read further than the page.
    sources = [_charges(each) for each in purses]
    sources += [_earnings(each, _last_calls(each, span)) for each in purses]
    sources += _transfers(purses)
    newest = [sa.select(_page(rows, span)) for rows in sources]
    entries = sa.union_all(*newest).subquery()
    return sa.select(entries).order_by(entries.c.at.desc(), entries.c.source.desc())


def _sources(purses: Sequence[UUID]) -> list[Select[Any]]:
    of_calls = [rows(each) for each in purses for rows in (_charges, _earnings)]
    return [*of_calls, *_transfers(purses)]


def _transfers(purses: Sequence[UUID]) -> list[Select[Any]]:
    return [
        _moved(purses, transfers.c.credit_id, transfers.c.debit_id, transfers.c.amount_nanos),
        _moved(purses, transfers.c.debit_id, transfers.c.credit_id, -transfers.c.amount_nanos),
    ]


def _entry(row: sa.Row[Any]) -> Entry:
    kind = EntryKind(row.kind)
    return Entry(row.at, row.source, kind, row.amount_nanos, row.reason, row.call_id)


def _page(rows: Select[Any], span: Span) -> sa.Subquery:
    inner = rows.subquery()
    at, source = inner.c.at, inner.c.source
    query = _bounded(sa.select(inner), (at, source), span)
    return query.order_by(at.desc(), source.desc()).limit(span.limit).subquery()


def _within_limit(rows: Select[Any], span: Span) -> Select[Any]:
    inner = rows.subquery()
    return _within(sa.select(inner), inner.c.at, span).limit(span.limit)


def _bounded(
    query: Select[Any], order: tuple[ColumnElement[Any], ColumnElement[Any]], span: Span
) -> Select[Any]:
    """Of the span, only what comes before its place."""
    query = _within(query, order[0], span)
    if span.place is not None:
        query = query.where(sa.tuple_(*order) < sa.tuple_(*span.place))
    return query


def _within(query: Select[Any], at: ColumnElement[Any], span: Span) -> Select[Any]:
    if span.since is not None:
        query = query.where(at >= span.since)
    if span.until is not None:
        query = query.where(at < span.until)
    return query


def _charges(ledger_account: UUID) -> Select[Any]:
    return _entries(
        settlements.c.settled_at,
        settlements.c.call_id,
        sa.literal(EntryKind.CHARGE.value),
        -settlements.c.charge_nanos,
        _NO_REASON,
        settlements.c.call_id,
    ).where(settlements.c.ledger_account_id == ledger_account, settlements.c.charge_nanos > 0)


def _last_calls(ledger_account: UUID, span: Span) -> sa.Subquery:
    """The calls of a page of earnings, found without a sum of all there are."""
    at, source = settlement_lines.c.settled_at, settlement_lines.c.call_id
    earned = sa.select(at.label("at"), source.label("source")).distinct()
    query = _bounded(
        earned.where(settlement_lines.c.payee_id == ledger_account), (at, source), span
    )
    return query.order_by(at.desc(), source.desc()).limit(span.limit).subquery()


def _earnings(ledger_account: UUID, of: sa.Subquery | None = None) -> Select[Any]:
    """One entry a call, though several attempts of it may have earned; of all calls, or of some."""
    lines = settlement_lines.c
    query = (
        _entries(
            lines.settled_at,
            lines.call_id,
            sa.literal(EntryKind.EARNING.value),
            sa.cast(sa.func.sum(lines.earnings_nanos), sa.BigInteger),
            _NO_REASON,
            lines.call_id,
        )
        .where(lines.payee_id == ledger_account)
        .group_by(lines.settled_at, lines.call_id)
    )
    if of is None:
        return query
    same = sa.and_(lines.call_id == of.c.source, lines.settled_at == of.c.at)
    return query.select_from(of.join(settlement_lines, same))


def _moved(
    purses: Sequence[UUID],
    own: ColumnElement[UUID],
    other: ColumnElement[UUID],
    amount_nanos: ColumnElement[int],
) -> Select[Any]:
    """Transfers over the border of the purses; those of one credit note are one entry."""
    move = transfers.c
    noted = sa.and_(move.kind.in_(_NOTED), move.about_id.is_not(None))
    source = sa.case((noted, move.about_id), else_=move.id)
    total = sa.cast(sa.func.sum(amount_nanos), sa.BigInteger)
    return (
        _entries(move.created_at, source, move.kind, total, move.reason, move.call_id)
        .where(own.in_(purses), other.not_in(purses))
        .group_by(move.created_at, source, move.kind, move.reason, move.call_id)
    )


def _entries(*columns: ColumnElement[Any]) -> Select[Any]:
    names = ("at", "source", "kind", "amount_nanos", "reason", "call_id")
    labelled = [column.label(name) for column, name in zip(columns, names, strict=True)]
    return sa.select(*labelled)
