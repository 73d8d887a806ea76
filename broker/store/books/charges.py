"""What a call was charged, line by line, and what of it has gone back since."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.refund import ChargedLine
from broker.store.books.credit_notes import credit_note_lines, credit_notes
from broker.store.tables import (
    calls,
    holds,
    ledger_accounts,
    open_holds,
    settlement_lines,
    settlements,
)


@dataclass(frozen=True, slots=True)
class SettledCall:
    """A call whose hold has ended; without lines nothing was charged.

    `account_id` is the consumer's, `funds` the ledger account that paid.
    """

    id: UUID
    account_id: UUID
    funds: UUID
    held_at: datetime
    settled_at: datetime
    lines: tuple[ChargedLine, ...]

    def of(self, provider_ids: Collection[UUID]) -> SettledCall:
        """Return the call with the lines of these providers alone."""
        kept = tuple(each for each in self.lines if each.provider_id in provider_ids)
        return replace(self, lines=kept)


async def find_settled(connection: AsyncConnection, call_id: UUID) -> SettledCall | None:
    """Return the call, None when it has not been settled; who may see it is asked elsewhere."""
    query = (
        sa.select(settlements, ledger_accounts.c.owner_id)
        .join(ledger_accounts, ledger_accounts.c.id == settlements.c.ledger_account_id)
        .where(settlements.c.call_id == call_id)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    lines = await _lines(connection, call_id) if row.charge_nanos else ()
    return SettledCall(
        call_id, row.owner_id, row.ledger_account_id, row.held_at, row.settled_at, lines
    )


async def is_under_way(connection: AsyncConnection, call_id: UUID) -> bool:
    """Return whether the call's hold is open."""
    query = sa.select(open_holds.c.call_id).where(open_holds.c.call_id == call_id)
    return await connection.scalar(query) is not None


async def owner_of(connection: AsyncConnection, call_id: UUID) -> UUID | None:
    """Return the account that made a call, served or refused; None when there is no such call."""
    held = (
        sa.select(ledger_accounts.c.owner_id)
        .join(holds, holds.c.ledger_account_id == ledger_accounts.c.id)
        .where(holds.c.call_id == call_id)
    )
    logged = sa.select(calls.c.account_id).where(calls.c.id == call_id)
    found: UUID | None = await connection.scalar(held) or await connection.scalar(logged)
    return found


async def _lines(connection: AsyncConnection, call_id: UUID) -> tuple[ChargedLine, ...]:
    line, given = settlement_lines.c, _given(call_id)
    query = (
        sa.select(
            settlement_lines,
            ledger_accounts.c.owner_id,
            sa.func.coalesce(given.c.amount_nanos, 0).label("given_nanos"),
            sa.func.coalesce(given.c.take_nanos, 0).label("given_take_nanos"),
        )
        .join(ledger_accounts, ledger_accounts.c.id == line.payee_id)
        .outerjoin(given, given.c.attempt == line.attempt)
        .where(line.call_id == call_id)
        .order_by(line.attempt)
    )
    return tuple(
        ChargedLine(
            attempt=row.attempt,
            endpoint_id=row.endpoint_id,
            provider_id=row.owner_id,
            take_id=row.take_id,
            charge_nanos=row.charge_nanos,
            take_nanos=row.take_nanos,
            given_nanos=int(row.given_nanos),
            given_take_nanos=int(row.given_take_nanos),
        )
        for row in await connection.execute(query)
    )


def _given(call_id: UUID) -> sa.Subquery:
    """What has gone back of each line of the call."""
    return (
        sa.select(
            credit_note_lines.c.attempt,
            sa.func.sum(credit_note_lines.c.amount_nanos).label("amount_nanos"),
            sa.func.sum(credit_note_lines.c.take_nanos).label("take_nanos"),
        )
        .join(credit_notes, credit_notes.c.id == credit_note_lines.c.credit_note_id)
        .where(credit_notes.c.call_id == call_id)
        .group_by(credit_note_lines.c.attempt)
        .subquery()
    )
