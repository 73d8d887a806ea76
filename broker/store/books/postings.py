"""Reads all that one call did to the books, from the immutable records."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row, RowMapping, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.postings import (
    CHARGE,
    Account,
    CallState,
    Entry,
    HeldMove,
    Posting,
    Postings,
)
from broker.store.tables import (
    accounts,
    calls,
    endpoints,
    holds,
    ledger_accounts,
    settlement_lines,
    settlements,
    transfers,
)


async def find_postings(connection: AsyncConnection, call_id: UUID) -> Postings | None:
    """Return the postings of a call, or None where no hold and no record of it is."""
    hold = await _first(connection, select(holds).where(holds.c.call_id == call_id))
    record = await _first(connection, select(calls).where(calls.c.id == call_id))
    if hold is None and record is None:
        return None
    settled = await _first(connection, select(settlements).where(settlements.c.call_id == call_id))
    lines = list(await connection.execute(_lines(call_id)))
    moved = list(await connection.execute(_transfers(call_id)))
    wanted = {each for row in lines for each in (row.payer_id, row.payee_id, row.take_id)}
    wanted |= {each for row in moved for each in (row.debit_id, row.credit_id)}
    wanted |= set() if hold is None else {hold["ledger_account_id"]}
    named = await _named(connection, wanted)
    begun = hold or record
    assert begun is not None
    return Postings(
        call_id=call_id,
        state=_state(hold, settled),
        begun_at=begun["created_at"],
        asked="" if record is None else _asked(record),
        payer=None if hold is None else named[hold["ledger_account_id"]],
        expires_at=None if hold is None else hold["expires_at"],
        held=_held(hold, settled),
        entries=(
            *(_charge(row, named) for row in lines),
            *(_transfer(row, named) for row in moved),
        ),
    )


async def payer_of(connection: AsyncConnection, call_id: UUID) -> UUID | None:
    """Return the account that asked for a call, whether or not anything was held for it."""
    found: UUID | None = await connection.scalar(
        select(ledger_accounts.c.owner_id)
        .join(holds, holds.c.ledger_account_id == ledger_accounts.c.id)
        .where(holds.c.call_id == call_id)
    )
    if found is None:
        found = await connection.scalar(select(calls.c.account_id).where(calls.c.id == call_id))
    return found


async def _first(connection: AsyncConnection, query: Select[Any]) -> RowMapping | None:
    row: RowMapping | None = (await connection.execute(query)).mappings().first()
    return row


def _state(hold: RowMapping | None, settled: RowMapping | None) -> CallState:
    if hold is None:
        return CallState.REFUSED
    return CallState.UNDER_WAY if settled is None else CallState(settled["kind"])


def _asked(record: RowMapping) -> str:
    code = f" {record['code']}" if record["code"] else ""
    return f"{record['task']} with {record['model']}, answered {record['status']}{code}"


def _held(hold: RowMapping | None, settled: RowMapping | None) -> tuple[HeldMove, ...]:
    if hold is None:
        return ()
    opened = HeldMove(hold["created_at"], "hold", hold["amount_nanos"])
    if settled is None:
        return (opened,)
    return (opened, HeldMove(settled["settled_at"], settled["kind"], -settled["hold_nanos"]))


def _lines(call_id: UUID) -> Select[Any]:
    return (
        select(settlement_lines, (accounts.c.name + "/" + endpoints.c.name).label("endpoint"))
        .outerjoin(endpoints, endpoints.c.id == settlement_lines.c.endpoint_id)
        .outerjoin(accounts, accounts.c.id == endpoints.c.provider_id)
        .where(settlement_lines.c.call_id == call_id)
        .order_by(settlement_lines.c.attempt)
    )


def _transfers(call_id: UUID) -> Select[Any]:
    mine = transfers.c.call_id == call_id
    return select(transfers).where(mine).order_by(transfers.c.created_at, transfers.c.id)


async def _named(connection: AsyncConnection, ids: Collection[UUID]) -> Mapping[UUID, Account]:
    query = (
        select(ledger_accounts, accounts.c.name.label("owner"))
        .outerjoin(accounts, accounts.c.id == ledger_accounts.c.owner_id)
        .where(ledger_accounts.c.id.in_(list(ids)))
    )
    return {
        row.id: Account(row.id, row.owner_id, row.owner, row.kind, row.shard)
        for row in await connection.execute(query)
    }


def _charge(row: Row[Any], named: Mapping[UUID, Account]) -> Entry:
    return Entry(
        at=row.settled_at,
        kind=CHARGE,
        postings=(
            Posting(named[row.payer_id], -row.charge_nanos),
            Posting(named[row.payee_id], row.earnings_nanos),
            Posting(named[row.take_id], row.take_nanos),
        ),
        attempt=row.attempt,
        endpoint=row.endpoint,
        tokens_in=row.tokens_in,
        tokens_out=row.tokens_out,
        price_version=row.price_version,
    )


def _transfer(row: Row[Any], named: Mapping[UUID, Account]) -> Entry:
    return Entry(
        at=row.created_at,
        kind=row.kind,
        postings=(
            Posting(named[row.debit_id], -row.amount_nanos),
            Posting(named[row.credit_id], row.amount_nanos),
        ),
        id=row.id,
        reason=row.reason,
        author=row.author,
    )
