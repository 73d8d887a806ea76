"""Reads the call log; a call that the broker's death cut short is told from its hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.ledger import CallRecord, SettlementKind
from broker.store.progress import first_id
from broker.store.tables import among, calls, holds, ledger_accounts, settlements

LIST_MAX: Final = 1_000
LOOKED_AT: Final = 10_000
"""So many calls a page looks at where only some are wanted: no index knows what is told of them,
and the next page goes on from there."""


@dataclass(frozen=True, slots=True)
class CutCall:
    """A call without a record: it is under way, or the broker that served it died.

    `ended` is None while its hold is open.
    """

    id: UUID
    account_id: UUID
    key_id: str
    hold_nanos: int
    created_at: datetime
    expires_at: datetime
    ended: SettlementKind | None
    charge_nanos: int
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Match:
    """What wanted calls have in common."""

    equal: Mapping[str, str] = field(default_factory=dict)
    """Values by the names of columns."""
    statuses: tuple[int, int] | None = None
    """From the first on, the second not included."""
    endpoint_numbers: Sequence[int] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Each of these, whatever others a call has."""

    def __bool__(self) -> bool:
        numbers = self.endpoint_numbers
        return bool(self.equal or self.statuses or self.labels or numbers is not None)

    def conditions(self, of: sa.ColumnCollection[str, Any]) -> list[ColumnElement[bool]]:
        """Return what is asked of rows with the columns of calls."""
        asked: list[ColumnElement[bool]] = [of[name] == value for name, value in self.equal.items()]
        if self.statuses is not None:
            asked += [of.status >= self.statuses[0], of.status < self.statuses[1]]
        if self.endpoint_numbers is not None:
            asked.append(among(of.endpoint_number, self.endpoint_numbers))
        if self.labels:
            asked.append(of.labels.contains(dict(self.labels)))
        return asked


@dataclass(frozen=True, slots=True)
class Filter:
    """Whose calls: of one account, or served by some endpoints; all when neither is given."""

    account_id: UUID | None = None
    endpoint_numbers: Sequence[int] | None = None
    before: UUID | None = None
    """Only calls older than this one."""
    since: datetime | None = None
    until: datetime | None = None
    """Only calls that began in this time, `until` not included."""
    match: Match = field(default_factory=Match)


@dataclass(frozen=True, slots=True)
class Page:
    """Calls, newest first; older ones may follow `after`, which is None at the end."""

    records: list[CallRecord]
    after: UUID | None


async def find_call(engine: AsyncEngine, call_id: UUID) -> CallRecord | CutCall | None:
    """Return the call's record, or what its hold tells, or None; who may see it is asked later."""
    async with engine.connect() as connection:
        rows = await connection.execute(_shown(sa.select(calls).where(calls.c.id == call_id)))
        row = rows.mappings().first()
        if row is not None:
            return CallRecord(**row)
        return await _find_cut(connection, call_id)


async def list_calls(engine: AsyncEngine, wanted: Filter, limit: int = 100) -> Page:
    """Return up to `limit` (at most 1,000) records; fewer, or none, of `wanted.match` where the
    newest LOOKED_AT have no more."""
    count = min(limit, LIST_MAX)
    query = _newest(wanted, count)
    if wanted.match:
        # The condition stays outside: looked at is no more than what the window holds.
        window = _newest(wanted, LOOKED_AT).subquery()
        query = sa.select(window).where(*wanted.match.conditions(window.c))
        query = query.order_by(window.c.id.desc()).limit(count)
    async with engine.connect() as connection:
        # Both see the same calls, so that none comes twice or falls between two pages.
        await connection.execution_options(isolation_level="REPEATABLE READ")
        rows = (await connection.execute(_shown(query))).mappings()
        records = [CallRecord(**row) for row in rows]
        if len(records) == count:
            return Page(records, records[-1].id)
        looked_at = _newest(wanted, 1).offset(LOOKED_AT - 1).with_only_columns(calls.c.id)
        return Page(records, await connection.scalar(looked_at) if wanted.match else None)


def _newest(wanted: Filter, count: int) -> sa.Select[Any]:
    """The newest calls of whom it may concern, whatever they are."""
    query = sa.select(calls).order_by(calls.c.id.desc()).limit(count)
    if wanted.account_id is not None:
        query = query.where(calls.c.account_id == wanted.account_id)
    if wanted.endpoint_numbers is not None:
        query = query.where(_at(wanted.endpoint_numbers))
    if wanted.before is not None:
        query = query.where(calls.c.id < wanted.before)
    if wanted.since is not None:
        query = query.where(calls.c.id >= first_id(wanted.since))
    if wanted.until is not None:
        query = query.where(calls.c.id < first_id(wanted.until))
    return query


def _at(numbers: Sequence[int]) -> ColumnElement[bool]:
    # Of one endpoint the index gives the newest in their order, of several it does not.
    number = calls.c.endpoint_number
    return number == numbers[0] if len(numbers) == 1 else among(number, numbers)


async def _find_cut(connection: AsyncConnection, call_id: UUID) -> CutCall | None:
    row = (
        await connection.execute(
            sa.select(
                holds,
                ledger_accounts.c.owner_id,
                settlements.c.kind,
                settlements.c.charge_nanos,
                settlements.c.settled_at,
            )
            .join(ledger_accounts, ledger_accounts.c.id == holds.c.ledger_account_id)
            .outerjoin(settlements, settlements.c.call_id == holds.c.call_id)
            .where(holds.c.call_id == call_id)
        )
    ).first()
    if row is None:
        return None
    return CutCall(
        id=row.call_id,
        account_id=row.owner_id,
        key_id=row.key_id,
        hold_nanos=row.amount_nanos,
        created_at=row.created_at,
        expires_at=row.expires_at,
        ended=SettlementKind(row.kind) if row.kind else None,
        charge_nanos=row.charge_nanos or 0,
        settled_at=row.settled_at,
    )


def _shown(query: sa.Select[Any]) -> sa.Select[Any]:
    """The columns under the names of CallRecord's fields."""
    of = query.selected_columns
    labels = sa.cast(of.labels, sa.Text).label("labels_json")
    return query.with_only_columns(*(each for each in of if each.name != "labels"), labels)
