"""Transfers between ledger accounts: the record and both balances in the caller's transaction."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import BalanceTooLow, NotFound
from broker.store.tables import balances, ledger_accounts, transfers
from pricing.money import format_usd

DATED_BACK_MAX: Final = timedelta(minutes=30)
"""As for a settlement, which the statement that makes it dates."""


class TransferKind(enum.StrEnum):
    """Why money moved without a call."""

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


@dataclass(frozen=True, slots=True)
class Transfer:
    """`amount_nanos` from `debit` to `credit`, both ledger accounts.

    `call_id` is the call that it is about, `about_id` the batch or case that it belongs to.
    """

    id: UUID
    debit: UUID
    credit: UUID
    amount_nanos: int
    kind: TransferKind
    reason: str
    author: str
    created_at: datetime
    call_id: UUID | None = None
    about_id: UUID | None = None


async def world(connection: AsyncConnection) -> UUID:
    """Return the ledger account that stands for everything outside."""
    query = select(ledger_accounts.c.id).where(ledger_accounts.c.kind == "world")
    found: UUID = (await connection.execute(query)).scalar_one()
    return found


def dated(at: datetime) -> ColumnElement[datetime]:
    """Return a moment that falls behind no seal (`broker.flows.books.seal`), however late the clock
    was that told it: half an hour ago at the earliest, by the database's own."""
    return func.greatest(at, func.now() - DATED_BACK_MAX)


async def post(connection: AsyncConnection, transfer: Transfer) -> None:
    """Write the transfer and move both balances, locked in the order of their ids.

    It is `dated` no further back than a settlement would be.

    Raises NotFound for a missing ledger account, BalanceTooLow when the debit does not fit.
    """
    ends = (transfer.debit, transfer.credit)
    column = balances.c.ledger_account_id
    rows = await connection.execute(
        select(balances).where(column.in_(ends)).order_by(column).with_for_update()
    )
    locked = {row.ledger_account_id: row for row in rows}
    if set(locked) != set(ends):
        raise NotFound("There is no such ledger account.")
    debit = locked[transfer.debit]
    available_nanos = debit.posted_nanos - debit.held_nanos
    if not debit.may_overdraw and available_nanos < transfer.amount_nanos:
        raise BalanceTooLow(
            f"{format_usd(available_nanos)} USD are available.",
            facts={"available_usd": format_usd(available_nanos)},
        )
    for account, change in (
        (transfer.debit, -transfer.amount_nanos),
        (transfer.credit, transfer.amount_nanos),
    ):
        await connection.execute(
            update(balances)
            .where(column == account)
            .values(posted_nanos=balances.c.posted_nanos + change)
        )
    await connection.execute(
        insert(transfers).values(
            id=transfer.id,
            debit_id=transfer.debit,
            credit_id=transfer.credit,
            amount_nanos=transfer.amount_nanos,
            kind=transfer.kind.value,
            reason=transfer.reason,
            author=transfer.author,
            created_at=dated(transfer.created_at),
            call_id=transfer.call_id,
            about_id=transfer.about_id,
        )
    )
