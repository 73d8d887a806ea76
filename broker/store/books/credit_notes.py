"""Credit notes: each time money went back to a consumer, numbered and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.refund import GivenLine
from broker.store.books.transfers import dated
from broker.store.tables import accounts, endpoints, table

LIST_MAX: Final = 1_000

credit_notes = table(
    "credit_notes",
    """
    id uuid, account_id uuid, number integer, kind text, call_id uuid, dispute_id uuid,
    amount_nanos bigint, reason text, author text, created_at timestamptz, budget_key_id text
    """,
)
credit_note_lines = table(
    "credit_note_lines",
    """
    credit_note_id uuid, attempt smallint, endpoint_id uuid, provider_id uuid, amount_nanos bigint,
    take_nanos bigint, earnings_nanos bigint
    """,
)


@dataclass(frozen=True, slots=True)
class NotedLine:
    """What of one attempt's charge went back; `endpoint` is None where there is no such one."""

    attempt: int
    endpoint: str | None
    provider_id: UUID
    amount_nanos: int
    take_nanos: int
    earnings_nanos: int


@dataclass(frozen=True, slots=True)
class CreditNote:
    """Money that went back to `account` for a call; `kind` is a TransferKind's value."""

    id: UUID
    account: str
    number: int
    kind: str
    call_id: UUID
    dispute_id: UUID | None
    amount_nanos: int
    reason: str
    author: str
    created_at: datetime
    lines: tuple[NotedLine, ...]

    @property
    def title(self) -> str:
        """Its number as it is printed, such as CN-acme-000002."""
        return f"CN-{self.account}-{self.number:06}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which notes: of a consumer, with lines of a provider, of a call, older than one."""

    account_id: UUID | None = None
    provider_id: UUID | None = None
    call_id: UUID | None = None
    note_id: UUID | None = None
    before: UUID | None = None


async def draw_number(connection: AsyncConnection, account_id: UUID) -> int:
    """Return a consumer's next number; the row lock of its funds must be held."""
    query = sa.select(sa.func.max(credit_notes.c.number)).where(
        credit_notes.c.account_id == account_id
    )
    return int(await connection.scalar(query) or 0) + 1


async def insert(
    connection: AsyncConnection, note: dict[str, Any], lines: Sequence[GivenLine]
) -> None:
    """Write a note, given by its columns, with its lines; of the date of its transfers."""
    values = note | {"created_at": dated(note["created_at"])}
    await connection.execute(sa.insert(credit_notes).values(**values))
    rows = [
        {
            "credit_note_id": note["id"],
            "attempt": each.line.attempt,
            "endpoint_id": each.line.endpoint_id,
            "provider_id": each.line.provider_id,
            "amount_nanos": each.amount_nanos,
            "take_nanos": each.take_nanos,
            "earnings_nanos": each.earnings_nanos,
        }
        for each in lines
    ]
    await connection.execute(sa.insert(credit_note_lines), rows)


async def has_sla_credit(connection: AsyncConnection, call_id: UUID) -> bool:
    """Return whether a missed promise of the call has been credited."""
    query = sa.select(credit_notes.c.id).where(
        credit_notes.c.call_id == call_id, credit_notes.c.kind == "sla_credit"
    )
    return await connection.scalar(query) is not None


async def find(connection: AsyncConnection, wanted: Wanted, limit: int = 100) -> list[CreditNote]:
    """Return up to `limit` (at most 1,000) notes, newest first; a provider's lines alone."""
    notes = credit_notes.c
    query = (
        sa.select(credit_notes, accounts.c.name)
        .join(accounts, accounts.c.id == notes.account_id)
        .order_by(notes.id.desc())
        .limit(min(limit, LIST_MAX))
    )
    for column, value in (
        (notes.account_id, wanted.account_id),
        (notes.call_id, wanted.call_id),
        (notes.id, wanted.note_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.before is not None:
        query = query.where(notes.id < wanted.before)
    if wanted.provider_id is not None:
        own = sa.select(credit_note_lines.c.credit_note_id).where(
            credit_note_lines.c.provider_id == wanted.provider_id
        )
        query = query.where(notes.id.in_(own))
    rows = (await connection.execute(query)).all()
    lines = await _lines(connection, [row.id for row in rows], wanted.provider_id)
    return [_note(row, lines.get(row.id, [])) for row in rows]


async def _lines(
    connection: AsyncConnection, note_ids: Sequence[UUID], provider_id: UUID | None
) -> dict[UUID, list[NotedLine]]:
    line, owner = credit_note_lines.c, accounts.alias("owner")
    query = (
        sa.select(credit_note_lines, (owner.c.name + "/" + endpoints.c.name).label("endpoint"))
        .outerjoin(endpoints, endpoints.c.id == line.endpoint_id)
        .outerjoin(owner, owner.c.id == endpoints.c.provider_id)
        .where(line.credit_note_id.in_(note_ids))
        .order_by(line.credit_note_id, line.attempt)
    )
    if provider_id is not None:
        query = query.where(line.provider_id == provider_id)
    found: dict[UUID, list[NotedLine]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.credit_note_id, []).append(
            NotedLine(
                row.attempt,
                row.endpoint,
                row.provider_id,
                row.amount_nanos,
                row.take_nanos,
                row.earnings_nanos,
            )
        )
    return found


def _note(row: sa.Row[Any], lines: Sequence[NotedLine]) -> CreditNote:
    return CreditNote(
        id=row.id,
        account=row.name,
        number=row.number,
        kind=row.kind,
        call_id=row.call_id,
        dispute_id=row.dispute_id,
        amount_nanos=row.amount_nanos,
        reason=row.reason,
        author=row.author,
        created_at=row.created_at,
        lines=tuple(lines),
    )
