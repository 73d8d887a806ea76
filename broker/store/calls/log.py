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
_LISTED: Final = tuple(each for each in calls.c if each.name != "story")
"""A story may be as long as all the rest of a page."""


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
    """Return up to `limit` (at most 1,000) records without their stories; fewer, or none, of
    `wanted.match` where the newest LOOKED_AT have no more."""
    count = min(limit, LIST_MAX)
    async with engine.connect() as connection:
        if not wanted.match:
            last = await _last(connection, wanted, count) if _several(wanted) else None
            return await _page(connection, _newest(wanted, count, last), count)
        # Both see the same calls, so that none falls between two pages.
        await connection.execution_options(isolation_level="REPEATABLE READ")
        last = await _last(connection, wanted, LOOKED_AT)
        # The condition stays outside: looked at is no more than what the window holds.
        window = _newest(wanted, LOOKED_AT, last).subquery()
        query = sa.select(window).where(*wanted.match.conditions(window.c))
        page = await _page(connection, query.order_by(window.c.id.desc()).limit(count), count)
        return page if page.after is not None else Page(page.records, last)


async def newest_ids(connection: AsyncConnection, wanted: Filter, count: int) -> list[UUID]:
    """Return the newest calls of whom it may concern, newest first; indexes alone tell them."""
    query = _newest(wanted, count, of=(calls.c.id,))
    return list((await connection.execute(query)).scalars())


async def _page(connection: AsyncConnection, query: sa.Select[Any], count: int) -> Page:
    rows = (await connection.execute(_shown(query))).mappings()
    records = [CallRecord(**row, story=b"") for row in rows]
    return Page(records, records[-1].id if len(records) == count else None)


async def _last(connection: AsyncConnection, wanted: Filter, count: int) -> UUID | None:
    """Return the last of the newest `count`, None where there are fewer; indexes alone tell it."""
    newest = _newest(wanted, count, of=(calls.c.id,)).subquery()
    last = sa.select(newest.c.id).order_by(newest.c.id.desc()).offset(count - 1)
    return await connection.scalar(last)


def _several(wanted: Filter) -> bool:
    return wanted.endpoint_numbers is not None and len(wanted.endpoint_numbers) != 1


def _newest(
    wanted: Filter,
    count: int,
    last: UUID | None = None,
    of: Sequence[ColumnElement[Any]] = _LISTED,
) -> sa.Select[Any]:
    """The newest calls of whom it may concern, whatever they are, none older than `last`."""
    query = _within(sa.select(*of), wanted)
    if last is not None:
        query = query.where(calls.c.id >= last)
    numbers = wanted.endpoint_numbers
    if numbers is None or len(numbers) == 1:
        if numbers is not None:
            query = query.where(calls.c.endpoint_number == numbers[0])
        return query.order_by(calls.c.id.desc()).limit(count)
    # Each endpoint's newest come in order by its index; no index has those of several so, and to
    # look for them among all calls takes the longer the fewer they are.
    listed = sa.func.unnest(sa.literal(list(numbers), sa.ARRAY(sa.Integer)))
    each = listed.table_valued("number").render_derived()
    own = query.where(calls.c.endpoint_number == each.c.number)
    newest = own.order_by(calls.c.id.desc()).limit(count).lateral()
    joined = sa.select(newest).select_from(each).join(newest, sa.true())
    return joined.order_by(newest.c.id.desc()).limit(count)


def _within(query: sa.Select[Any], wanted: Filter) -> sa.Select[Any]:
    if wanted.account_id is not None:
        query = query.where(calls.c.account_id == wanted.account_id)
    if wanted.before is not None:
        query = query.where(calls.c.id < wanted.before)
    if wanted.since is not None:
        query = query.where(calls.c.id >= first_id(wanted.since))
    if wanted.until is not None:
        query = query.where(calls.c.id < first_id(wanted.until))
    return query


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
