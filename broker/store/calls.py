"""Reads the call log; a call that the broker's death cut short is told from its hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.ledger import CallRecord, SettlementKind
from broker.store.progress import first_id
from broker.store.tables import among, calls, holds, ledger_accounts, settlements

LIST_MAX: Final = 1_000


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
class Filter:
    """Whose calls: of one account, or served by some endpoints; all when neither is given."""

    account_id: UUID | None = None
    endpoint_numbers: Sequence[int] | None = None
    before: UUID | None = None
    """Only calls older than this one."""
    since: datetime | None = None
    until: datetime | None = None
    """Only calls that began in this time, `until` not included."""


async def find_call(engine: AsyncEngine, call_id: UUID) -> CallRecord | CutCall | None:
    """Return the call's record, or what its hold tells, or None; who may see it is asked later."""
    async with engine.connect() as connection:
        rows = await connection.execute(_records().where(calls.c.id == call_id))
        row = rows.mappings().first()
        if row is not None:
            return CallRecord(**row)
        return await _find_cut(connection, call_id)


async def list_calls(engine: AsyncEngine, wanted: Filter, limit: int = 100) -> list[CallRecord]:
    """Return up to `limit` (at most 1,000) records, newest first."""
    query = _records().order_by(calls.c.id.desc()).limit(min(limit, LIST_MAX))
    if wanted.account_id is not None:
        query = query.where(calls.c.account_id == wanted.account_id)
    if wanted.endpoint_numbers is not None:
        query = query.where(among(calls.c.endpoint_number, wanted.endpoint_numbers))
    if wanted.before is not None:
        query = query.where(calls.c.id < wanted.before)
    if wanted.since is not None:
        query = query.where(calls.c.id >= first_id(wanted.since))
    if wanted.until is not None:
        query = query.where(calls.c.id < first_id(wanted.until))
    async with engine.connect() as connection:
        rows = await connection.execute(query)
        return [CallRecord(**row) for row in rows.mappings()]


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


def _records() -> sa.Select[Any]:
    """The columns under the names of CallRecord's fields."""
    labels = sa.cast(calls.c.labels, sa.Text).label("labels_json")
    return sa.select(*(each for each in calls.c if each.name != "labels"), labels)
