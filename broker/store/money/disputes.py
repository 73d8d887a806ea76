"""Disputes of calls: what a consumer asks back, and what each provider concerned answers."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import accounts, table

LIST_MAX: Final = 1_000

disputes = table(
    "disputes",
    """
    id uuid, call_id uuid, account_id uuid, asked_nanos bigint, reason text, status text,
    opened_at timestamptz, answer_by timestamptz, closed_at timestamptz, verdict text,
    verdict_words text
    """,
)
dispute_parts = table(
    "dispute_parts",
    """
    dispute_id uuid, provider_id uuid, asked_nanos bigint, answer text, words text,
    answered_at timestamptz, refunded_nanos bigint
    """,
)


class Status(enum.StrEnum):
    """How far a dispute has come."""

    OPEN = "open"
    """A provider has still to answer."""
    CONTESTED = "contested"
    """An operator has to decide."""
    DECIDED = "decided"
    WITHDRAWN = "withdrawn"


class Answer(enum.StrEnum):
    """What a provider says to its part."""

    WAITING = "waiting"
    ACCEPTED = "accepted"
    CONTESTED = "contested"
    OVERDUE = "overdue"
    """It has said nothing in time, which counts as accepted."""


class Verdict(enum.StrEnum):
    """What an operator decided."""

    UPHELD = "upheld"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Part:
    """One provider's part: what is asked of its lines, its answer, what was given back of it."""

    provider_id: UUID
    provider: str
    asked_nanos: int
    answer: Answer
    words: str
    answered_at: datetime | None
    refunded_nanos: int


@dataclass(frozen=True, slots=True)
class Dispute:
    """A consumer's word against a call."""

    id: UUID
    call_id: UUID
    account_id: UUID
    account: str
    asked_nanos: int
    reason: str
    status: Status
    opened_at: datetime
    answer_by: datetime
    closed_at: datetime | None
    verdict: Verdict | None
    verdict_words: str
    parts: tuple[Part, ...]

    @property
    def refunded_nanos(self) -> int:
        """What has been given back."""
        return sum(each.refunded_nanos for each in self.parts)

    def having(self, answer: Answer) -> list[Part]:
        """Return the parts with this answer."""
        return [each for each in self.parts if each.answer is answer]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which disputes: a consumer's, with a part of a provider, of a status, older than one."""

    account_id: UUID | None = None
    provider_id: UUID | None = None
    status: Status | None = None
    call_id: UUID | None = None
    dispute_id: UUID | None = None
    before: UUID | None = None


async def open_(
    connection: AsyncConnection, columns: dict[str, Any], parts: dict[UUID, int]
) -> bool:
    """Open a dispute, given by its columns, with what is asked of each provider.

    False when one of the call is under way.
    """
    done = await connection.execute(
        insert(disputes)
        .values(status=Status.OPEN.value, **columns)
        .on_conflict_do_nothing(
            index_elements=["call_id"],
            index_where=disputes.c.status.in_([Status.OPEN.value, Status.CONTESTED.value]),
        )
        .returning(disputes.c.id)
    )
    if done.scalar_one_or_none() is None:
        return False
    rows = [
        {
            "dispute_id": columns["id"],
            "provider_id": provider_id,
            "asked_nanos": asked_nanos,
            "answer": Answer.WAITING.value,
        }
        for provider_id, asked_nanos in sorted(parts.items())
    ]
    await connection.execute(sa.insert(dispute_parts), rows)
    return True


async def lock(connection: AsyncConnection, dispute_id: UUID) -> Dispute | None:
    """Return a dispute under its row lock, None when there is none."""
    query = sa.select(disputes.c.id).where(disputes.c.id == dispute_id).with_for_update()
    if await connection.scalar(query) is None:
        return None
    return await find(connection, dispute_id)


async def overdue(
    connection: AsyncConnection, now: datetime, after: tuple[UUID, datetime] | None, limit: int
) -> list[tuple[UUID, datetime]]:
    """Return up to `limit` disputes whose time to answer is over, with that time, in the order of
    both, from the one after `after` on."""
    place = sa.tuple_(disputes.c.answer_by, disputes.c.id)
    query = sa.select(disputes.c.id, disputes.c.answer_by).where(_is_overdue(now))
    if after is not None:
        query = query.where(place > sa.tuple_(*reversed(after)))
    rows = await connection.execute(query.order_by(*place).limit(limit))
    return [(row.id, row.answer_by) for row in rows]


async def lock_overdue(
    connection: AsyncConnection, dispute_id: UUID, now: datetime
) -> Dispute | None:
    """Return a dispute under its row lock, None when it is not overdue any more or another has
    locked it."""
    query = sa.select(disputes.c.id).where(disputes.c.id == dispute_id, _is_overdue(now))
    if await connection.scalar(query.with_for_update(skip_locked=True)) is None:
        return None
    return await find(connection, dispute_id)


def _is_overdue(now: datetime) -> sa.ColumnElement[bool]:
    return sa.and_(disputes.c.status == Status.OPEN.value, disputes.c.answer_by <= now)


async def find(connection: AsyncConnection, dispute_id: UUID) -> Dispute | None:
    """Return a dispute with all its parts; who may see them is asked elsewhere."""
    rows = await _fetch(connection, _disputes().where(disputes.c.id == dispute_id), None)
    return rows[0] if rows else None


async def list_disputes(
    connection: AsyncConnection, wanted: Wanted, limit: int = 100
) -> list[Dispute]:
    """Return up to `limit` (at most 1,000), newest first; a provider's own parts alone."""
    query = _disputes().order_by(disputes.c.id.desc()).limit(min(limit, LIST_MAX))
    for column, value in (
        (disputes.c.account_id, wanted.account_id),
        (disputes.c.status, wanted.status),
        (disputes.c.call_id, wanted.call_id),
        (disputes.c.id, wanted.dispute_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.before is not None:
        query = query.where(disputes.c.id < wanted.before)
    if wanted.provider_id is not None:
        own = sa.select(dispute_parts.c.dispute_id).where(
            dispute_parts.c.provider_id == wanted.provider_id
        )
        query = query.where(disputes.c.id.in_(own))
    return await _fetch(connection, query, wanted.provider_id)


async def answer(
    connection: AsyncConnection,
    dispute_id: UUID,
    provider_id: UUID,
    said: tuple[Answer, str],
    now: datetime,
) -> None:
    """Write a provider's answer and its words."""
    kind, words = said
    await _update_part(
        connection, dispute_id, provider_id, answer=kind.value, words=words, answered_at=now
    )


async def add_refunded(
    connection: AsyncConnection, dispute_id: UUID, provider_id: UUID, amount_nanos: int
) -> None:
    """Count what was given back of a part."""
    more = dispute_parts.c.refunded_nanos + amount_nanos
    await _update_part(connection, dispute_id, provider_id, refunded_nanos=more)


async def set_status(connection: AsyncConnection, dispute_id: UUID, **columns: Any) -> None:
    """Move a dispute on."""
    await connection.execute(
        sa.update(disputes).where(disputes.c.id == dispute_id).values(**columns)
    )


async def _update_part(
    connection: AsyncConnection, dispute_id: UUID, provider_id: UUID, **columns: Any
) -> None:
    part = dispute_parts.c
    await connection.execute(
        sa.update(dispute_parts)
        .where(part.dispute_id == dispute_id, part.provider_id == provider_id)
        .values(**columns)
    )


def _disputes() -> sa.Select[Any]:
    return sa.select(disputes, accounts.c.name).join(
        accounts, accounts.c.id == disputes.c.account_id
    )


async def _fetch(
    connection: AsyncConnection, query: sa.Select[Any], provider_id: UUID | None
) -> list[Dispute]:
    rows = (await connection.execute(query)).all()
    parts = await _parts(connection, [row.id for row in rows], provider_id)
    return [
        Dispute(
            id=row.id,
            call_id=row.call_id,
            account_id=row.account_id,
            account=row.name,
            asked_nanos=row.asked_nanos,
            reason=row.reason,
            status=Status(row.status),
            opened_at=row.opened_at,
            answer_by=row.answer_by,
            closed_at=row.closed_at,
            verdict=Verdict(row.verdict) if row.verdict else None,
            verdict_words=row.verdict_words,
            parts=tuple(parts.get(row.id, ())),
        )
        for row in rows
    ]


async def _parts(
    connection: AsyncConnection, dispute_ids: Sequence[UUID], provider_id: UUID | None
) -> dict[UUID, list[Part]]:
    part = dispute_parts.c
    query = (
        sa.select(dispute_parts, accounts.c.name)
        .join(accounts, accounts.c.id == part.provider_id)
        .where(part.dispute_id.in_(dispute_ids))
        .order_by(part.dispute_id, part.provider_id)
    )
    if provider_id is not None:
        query = query.where(part.provider_id == provider_id)
    found: dict[UUID, list[Part]] = {}
    for row in await connection.execute(query):
        found.setdefault(row.dispute_id, []).append(
            Part(
                provider_id=row.provider_id,
                provider=row.name,
                asked_nanos=row.asked_nanos,
                answer=Answer(row.answer),
                words=row.words,
                answered_at=row.answered_at,
                refunded_nanos=row.refunded_nanos,
            )
        )
    return found
