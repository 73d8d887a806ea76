"""What moved a balance, summed by what it was for; the sums are those of the ledger's records."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement, Select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.books.credit_notes import credit_note_lines, credit_notes
from broker.store.books.statements import Span
from broker.store.tables import (
    accounts,
    calls,
    endpoints,
    holds,
    settlement_lines,
    settlements,
    transfers,
)

ROWS_MAX: Final = 1_000
"""Labels are the caller's own, so there may be as many as calls; the others come as one sum."""


_FACTS: Final = ("kind", "call_id", "endpoint_id", "at", "amount_nanos", "held_at")
_APART: Final = timedelta(days=1)
"""Far more than lies between a call's hold and its admission: partitions that are further away are
not looked into, of which there are as many as months."""


class By(enum.StrEnum):
    """What entries are summed by."""

    KEY = "key"
    ENDPOINT = "endpoint"
    DOMAIN = "domain"
    MODEL = "model"
    """As it was asked for."""
    TASK_LABEL = "task_label"
    """What the caller said as `task` in its `broker` object."""
    LABEL = "label"
    """One of the caller's other labels."""
    DAY = "day"
    """Of UTC."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """What entries are summed by; `label` is the name of a label, of By.LABEL alone."""

    by: By
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Whose:
    """An account and its ledger accounts; `sells` for a provider."""

    account_id: UUID
    purses: Sequence[UUID]
    sells: bool


@dataclass(frozen=True, slots=True)
class Sums:
    """Signed nano-dollars: of calls, of what went back for calls, of everything else."""

    calls: int
    calls_nanos: int
    credits_nanos: int
    other_nanos: int

    @property
    def total_nanos(self) -> int:
        """What moved the balance."""
        return self.calls_nanos + self.credits_nanos + self.other_nanos

    def minus(self, other: Sums) -> Sums:
        """Return what is left when another's are taken away."""
        return Sums(
            self.calls - other.calls,
            self.calls_nanos - other.calls_nanos,
            self.credits_nanos - other.credits_nanos,
            self.other_nanos - other.other_nanos,
        )


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums by group, the largest first; `group` is None for what belongs to none."""

    rows: list[tuple[str | None, Sums]]
    whole: Sums


async def read_totals(
    connection: AsyncConnection, whose: Whose, grouping: Grouping, span: Span
) -> Totals:
    """Return at most ROWS_MAX groups, and the sums of all of them."""
    others = [_plain(rows) for rows in other_transfers(whose, span)]
    by_lines = whose.sells or grouping.by is By.ENDPOINT
    traded = _traded(whose, span) if by_lines else _charged(whose, span)
    entries = sa.union_all(traded, _credited(whose, span), *others).subquery()
    grouped = _grouped(entries, grouping, by_lines=by_lines).subquery()
    whole = [sa.func.sum(column).over() for column in grouped.c if column.name != "label"]
    query = (
        sa.select(*grouped.c, *whole)
        .order_by(
            sa.func.abs(
                grouped.c.traded_nanos + grouped.c.credited_nanos + grouped.c.other_nanos
            ).desc(),
            grouped.c.label,
        )
        .limit(ROWS_MAX)
    )
    rows = (await connection.execute(query)).all()
    return Totals(
        rows=[(None if row[0] is None else str(row[0]), _sums(row[1:5])) for row in rows],
        whole=_sums(rows[0][5:]) if rows else Sums(0, 0, 0, 0),
    )


def _grouped(entries: sa.Subquery, grouping: Grouping, *, by_lines: bool) -> Select[Any]:
    amount, kind = entries.c.amount_nanos, entries.c.kind
    # A call has one settlement, but maybe several lines; telling those apart sorts all there are.
    called = entries.c.call_id.distinct() if by_lines else entries.c.call_id
    label, joined = _label(entries, grouping)

    def of(wanted: str) -> ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(amount).filter(kind == wanted), 0)

    return (
        sa.select(
            label.label("label"),
            sa.func.count(called).filter(kind == "traded").label("calls"),
            of("traded").label("traded_nanos"),
            of("credited").label("credited_nanos"),
            of("other").label("other_nanos"),
        )
        .select_from(joined)
        .group_by(label)
    )


def _label(entries: sa.Subquery, grouping: Grouping) -> tuple[ColumnElement[Any], sa.FromClause]:
    """Return what to group by, and the tables that it takes."""
    by = grouping.by
    if by is By.DAY:
        return sa.func.date(sa.func.timezone("UTC", entries.c.at)), entries
    if by is By.ENDPOINT:
        named = entries.outerjoin(endpoints, endpoints.c.id == entries.c.endpoint_id).outerjoin(
            accounts, accounts.c.id == endpoints.c.provider_id
        )
        return accounts.c.name + "/" + endpoints.c.name, named
    if by is By.KEY:  # a hold is a tenth as wide as a call
        held = _near(holds.c.created_at, entries)
        return holds.c.key_id, entries.outerjoin(
            holds, sa.and_(holds.c.call_id == entries.c.call_id, held)
        )
    same = sa.and_(calls.c.id == entries.c.call_id, _near(calls.c.created_at, entries))
    columns: dict[By, ColumnElement[Any]] = {
        By.DOMAIN: calls.c.domain,
        By.MODEL: calls.c.model,
        By.TASK_LABEL: calls.c.task_label,
        By.LABEL: calls.c.labels[grouping.label].astext,
    }
    return columns[by], entries.outerjoin(calls, same)


def _near(at: ColumnElement[Any], entries: sa.Subquery) -> ColumnElement[bool]:
    """Not far from when the call was held, where that is known."""
    first = sa.func.coalesce(entries.c.held_at, sa.text("'-infinity'::timestamptz"))
    last = sa.func.coalesce(entries.c.held_at, sa.text("'infinity'::timestamptz"))
    return sa.and_(at >= first - _APART, at < last + _APART)


def _charged(whose: Whose, span: Span) -> Select[Any]:
    """What a consumer paid, by the call."""
    paid = settlements.c
    columns = (paid.call_id, _nowhere(), paid.settled_at, -paid.charge_nanos, paid.held_at)
    ours = _facts("traded", *columns).where(
        paid.ledger_account_id.in_(whose.purses), paid.charge_nanos > 0
    )
    return _within(ours, paid.settled_at, span)


def _traded(whose: Whose, span: Span) -> Select[Any]:
    """Lines that a provider earned with, or that a consumer paid.

    No index orders lines by who paid, for it would weigh on every call; one orders settlements so,
    and the lines of each are found by its call.
    """
    line, paid = settlement_lines.c, settlements.c
    if whose.sells:
        earned = _facts(
            "traded", line.call_id, line.endpoint_id, line.settled_at, line.earnings_nanos, _never()
        )
        return _within(earned.where(line.payee_id.in_(whose.purses)), line.settled_at, span)
    amount = -line.charge_nanos
    facts = _facts("traded", line.call_id, line.endpoint_id, line.settled_at, amount, paid.held_at)
    same = sa.and_(line.call_id == paid.call_id, line.settled_at == paid.settled_at)
    charged = facts.select_from(settlements).join(settlement_lines, same)
    ours = charged.where(paid.ledger_account_id.in_(whose.purses), paid.charge_nanos > 0)
    return _within(ours, paid.settled_at, span)


def _credited(whose: Whose, span: Span) -> Select[Any]:
    """What credit notes gave to a consumer, or took from a provider."""
    note, line = credit_notes.c, credit_note_lines.c
    owner, amount = (
        (line.provider_id, -line.earnings_nanos)
        if whose.sells
        else (note.account_id, line.amount_nanos)
    )
    columns = (note.call_id, line.endpoint_id, note.created_at, amount, _never())
    facts = _facts("credited", *columns)
    joined = facts.select_from(credit_notes).join(credit_note_lines, line.credit_note_id == note.id)
    return _within(joined.where(owner == whose.account_id), note.created_at, span)


def other_transfers(whose: Whose, span: Span) -> list[Select[Any]]:
    """Transfers over the border of the purses, but for those that a credit note tells of: their
    call, time, signed amount and kind."""
    move = transfers.c
    noted = sa.exists().where(credit_notes.c.id == move.about_id)
    return [
        _within(
            _facts("other", move.call_id, _nowhere(), move.created_at, amount, _never())
            .add_columns(move.kind.label("transfer_kind"))
            .where(own.in_(whose.purses), foreign.not_in(whose.purses), ~noted),
            move.created_at,
            span,
        )
        for own, foreign, amount in (
            (move.credit_id, move.debit_id, move.amount_nanos),
            (move.debit_id, move.credit_id, -move.amount_nanos),
        )
    ]


def _nowhere() -> ColumnElement[Any]:
    return sa.cast(sa.null(), sa.Uuid())


def _never() -> ColumnElement[Any]:
    return sa.cast(sa.null(), sa.DateTime(timezone=True))


def _plain(rows: Select[Any]) -> Select[Any]:
    inner = rows.subquery()
    return sa.select(*(inner.c[name] for name in _FACTS))


def _facts(kind: str, *columns: ColumnElement[Any]) -> Select[Any]:
    named = zip((sa.literal(kind), *columns), _FACTS, strict=True)
    return sa.select(*(column.label(name) for column, name in named))


def _within(rows: Select[Any], at: ColumnElement[Any], span: Span) -> Select[Any]:
    if span.since is not None:
        rows = rows.where(at >= span.since)
    if span.until is not None:
        rows = rows.where(at < span.until)
    return rows


def _sums(columns: Sequence[Any]) -> Sums:
    return Sums(*map(int, columns))
