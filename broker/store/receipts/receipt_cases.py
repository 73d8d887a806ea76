"""Cases: where receipts and the broker's own records differ. A case never moves money."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.receipts import CaseKind, Difference
from broker.store.tables import accounts, deployments, table

OPEN_MAX: Final = 100
"""Cases of one kind open at one deployment; what is found beyond them is counted."""

receipt_cases = table(
    "receipt_cases",
    """
    id uuid, kind text, provider_id uuid, deployment_id uuid, call_id uuid, attempt smallint,
    detail jsonb, further bigint, opened_at timestamptz, closed_at timestamptz, closed_by text,
    close_reason text
    """,
)

Found = tuple[UUID, Difference]
"""A call, and what differs of it."""
Group = tuple[UUID, CaseKind]
"""A deployment, and a kind of difference."""


@dataclass(frozen=True, slots=True)
class Case:
    """A difference that was found; `further` others of its kind were, for which there was no room.

    `deployment` is `provider/name`.
    """

    id: UUID
    kind: CaseKind
    provider_id: UUID
    deployment_id: UUID
    deployment: str
    call_id: UUID
    attempt: int
    detail: dict[str, Any]
    further: int
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    close_reason: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which cases: of one provider or all; open, closed or both (None); older than `before`."""

    provider_id: UUID | None = None
    is_open: bool | None = None
    before: UUID | None = None
    limit: int = 100


async def open_cases(
    connection: AsyncConnection, found: Sequence[Found], now: datetime
) -> list[Case]:
    """Open a case for each difference that has none, while there is room; return the new ones.

    To be called under the lock of the horizon, which lets nobody else open any.
    """
    concerned = {difference.place[1] for _, difference in found}
    owners = await _owners(connection, concerned)
    room = await _room(connection, concerned)
    opened: list[UUID] = []
    beyond: Counter[Group] = Counter()
    for call_id, difference in found:
        attempt, deployment_id = difference.place
        group = (deployment_id, difference.kind)
        if room.get(group, OPEN_MAX) <= 0:
            beyond[group] += 1
            continue
        values = {
            "id": uuid7(),
            "kind": difference.kind.value,
            "provider_id": owners[deployment_id],
            "deployment_id": deployment_id,
            "call_id": call_id,
            "attempt": attempt,
            "detail": dict(difference.detail),
            "opened_at": now,
        }
        made = insert(receipt_cases).values(values).on_conflict_do_nothing()
        case_id = await connection.scalar(made.returning(receipt_cases.c.id))
        if case_id is not None:
            opened.append(case_id)
            room[group] = room.get(group, OPEN_MAX) - 1
    for group, number in beyond.items():
        await _count(connection, group, number)
    return await _fetch(connection, _cases().where(receipt_cases.c.id.in_(opened)))


async def list_cases(connection: AsyncConnection, wanted: Wanted) -> list[Case]:
    """Return cases, newest first."""
    query = _cases().order_by(receipt_cases.c.id.desc()).limit(wanted.limit)
    if wanted.provider_id is not None:
        query = query.where(receipt_cases.c.provider_id == wanted.provider_id)
    if wanted.is_open is not None:
        ended = receipt_cases.c.closed_at
        query = query.where(ended.is_(None) if wanted.is_open else ended.is_not(None))
    if wanted.before is not None:
        query = query.where(receipt_cases.c.id < wanted.before)
    return await _fetch(connection, query)


async def lock_case(connection: AsyncConnection, case_id: UUID) -> Case | None:
    """Return a case, locked, or None."""
    query = _cases().where(receipt_cases.c.id == case_id)
    found = await _fetch(connection, query.with_for_update(of=receipt_cases, key_share=True))
    return found[0] if found else None


async def close_cases(
    connection: AsyncConnection, case_ids: Collection[UUID], by: str, reason: str, now: datetime
) -> list[Case]:
    """Close cases that are open; return them."""
    some = receipt_cases.c.id.in_(list(case_ids))
    end = {"closed_at": func.greatest(receipt_cases.c.opened_at, now)}
    change = update(receipt_cases).where(some, receipt_cases.c.closed_at.is_(None))
    await connection.execute(change.values(**end, closed_by=by, close_reason=reason))
    return await _fetch(connection, _cases().where(some))


async def find_answered(
    connection: AsyncConnection, places: Collection[tuple[UUID, int, UUID]]
) -> list[UUID]:
    """Return the open cases of missing receipts of these attempts (call, attempt, deployment)."""
    of = receipt_cases.c
    query = select(of.id).where(
        of.kind == CaseKind.NO_RECEIPT.value,
        of.closed_at.is_(None),
        tuple_(of.call_id, of.attempt, of.deployment_id).in_(list(places)),
    )
    return list((await connection.execute(query)).scalars())


async def count_open(connection: AsyncConnection, provider_id: UUID) -> dict[UUID, int]:
    """Return how many cases are open at each of a provider's deployments that has any."""
    of = receipt_cases.c
    query = (
        select(of.deployment_id, func.count().label("number"))
        .where(of.provider_id == provider_id, of.closed_at.is_(None))
        .group_by(of.deployment_id)
    )
    rows = await connection.execute(query)
    return {row.deployment_id: row.number for row in rows}


async def _owners(connection: AsyncConnection, concerned: Collection[UUID]) -> dict[UUID, UUID]:
    query = select(deployments.c.id, deployments.c.provider_id)
    rows = await connection.execute(query.where(deployments.c.id.in_(list(concerned))))
    return {row.id: row.provider_id for row in rows}


async def _room(connection: AsyncConnection, concerned: Collection[UUID]) -> dict[Group, int]:
    """How many cases may be opened, by deployment and kind; all where there is none."""
    of = receipt_cases.c
    query = (
        select(of.deployment_id, of.kind, func.count())
        .where(of.deployment_id.in_(list(concerned)), of.closed_at.is_(None))
        .group_by(of.deployment_id, of.kind)
    )
    rows = await connection.execute(query)
    return {(deployment, CaseKind(kind)): OPEN_MAX - count for deployment, kind, count in rows}


async def _count(connection: AsyncConnection, group: Group, number: int) -> None:
    """Count differences without a case of their own at the newest open case of their kind."""
    deployment_id, kind = group
    of = receipt_cases.c
    newest = (
        select(of.id)
        .where(of.deployment_id == deployment_id, of.kind == kind.value, of.closed_at.is_(None))
        .order_by(of.id.desc())
        .limit(1)
    )
    change = update(receipt_cases).where(of.id == newest.scalar_subquery())
    await connection.execute(change.values(further=of.further + number))


def _cases() -> Select[Any]:
    name = (accounts.c.name + "/" + deployments.c.name).label("deployment")
    return (
        select(receipt_cases, name)
        .join(deployments, deployments.c.id == receipt_cases.c.deployment_id)
        .join(accounts, accounts.c.id == deployments.c.provider_id)
    )


async def _fetch(connection: AsyncConnection, query: Select[Any]) -> list[Case]:
    rows = (await connection.execute(query)).mappings()
    return [Case(**{**row, "kind": CaseKind(row["kind"])}) for row in rows]
