"""Takes back from providers what their calls are not to earn: from which purse, in which order.

A provider's earnings stand in `earnings` until they mature into `available`, all those of lines
settled before its watermark (`maturities.matured_before`) at once. So what is taken back for a line
settled at or after the watermark comes from `earnings`, and for an older one from `available`. What
is not there is owed: `receivable` goes below zero, so a refund after a payout is no error in the
books. All of it happens under the row locks of the balances, taken in the order of their ids, and
the watermark is read and moved under the same locks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.store.books import transfers
from broker.store.books.transfers import Transfer, TransferKind
from broker.store.tables import balances, ledger_accounts, table

maturities = table("maturities", "provider_id uuid, matured_before timestamptz")

_PURSES = ("earnings", "available", "receivable")


@dataclass(frozen=True, slots=True)
class Ground:
    """Why money goes back to a consumer: for which call, under which note, by whose word.

    `settled_at` is the call's settlement, `funds` the ledger account that is credited, `kind` a
    REFUND or SLA_CREDIT, `about_id` the credit note.
    """

    call_id: UUID
    settled_at: datetime
    funds: UUID
    kind: TransferKind
    about_id: UUID
    reason: str
    author: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Taken:
    """What came from where; nano-dollars, which sum to what was to be taken back."""

    earnings_nanos: int
    available_nanos: int
    receivable_nanos: int

    @property
    def whole_nanos(self) -> int:
        """All of it."""
        return self.earnings_nanos + self.available_nanos + self.receivable_nanos


async def purses_of(
    connection: AsyncConnection, provider_ids: Iterable[UUID]
) -> dict[UUID, dict[str, UUID]]:
    """Return the ledger accounts of these providers (account ids), by kind."""
    query = select(ledger_accounts.c.owner_id, ledger_accounts.c.kind, ledger_accounts.c.id).where(
        ledger_accounts.c.owner_id.in_(sorted(set(provider_ids))),
        ledger_accounts.c.kind.in_(_PURSES),
        ledger_accounts.c.shard == 0,
    )
    purses: dict[UUID, dict[str, UUID]] = {}
    for row in await connection.execute(query):
        purses.setdefault(row.owner_id, {})[row.kind] = row.id
    return purses


async def lock(connection: AsyncConnection, accounts: Iterable[UUID]) -> dict[UUID, int]:
    """Lock balances in the order of their ids; return what is available in each, nano-dollars."""
    column = balances.c.ledger_account_id
    rows = await connection.execute(
        select(balances).where(column.in_(sorted(set(accounts)))).order_by(column).with_for_update()
    )
    return {row.ledger_account_id: row.posted_nanos - row.held_nanos for row in rows}


async def matured_before(connection: AsyncConnection, provider_id: UUID) -> datetime | None:
    """Return a provider's watermark, None before its first; read it under the locks."""
    query = select(maturities.c.matured_before).where(maturities.c.provider_id == provider_id)
    found: datetime | None = await connection.scalar(query)
    return found


async def claw_back(
    connection: AsyncConnection, provider_id: UUID, amount_nanos: int, ground: Ground
) -> Taken:
    """Move `amount_nanos` (above 0) from a provider's purses to the consumer's funds.

    It locks the purses and the funds; a caller that takes back from several providers in one
    transaction locks all of theirs first (`lock`), so that the order holds. Whether so much may be
    taken back at all is the caller's to ask, under those locks.
    """
    purses = (await purses_of(connection, [provider_id]))[provider_id]
    free = await lock(connection, [*purses.values(), ground.funds])
    watermark = await matured_before(connection, provider_id)
    matured = watermark is not None and ground.settled_at < watermark
    # Never from `earnings` for a matured line: what is still pending there belongs to other calls.
    # The reverse is for earnings that an adjustment has emptied.
    order = ("available",) if matured else ("earnings", "available")
    taken = dict.fromkeys(_PURSES, 0)
    for kind in order:
        if kind in purses:
            left = amount_nanos - sum(taken.values())
            taken[kind] = min(left, max(free[purses[kind]], 0))
    taken["receivable"] = amount_nanos - sum(taken.values())
    for kind, part_nanos in taken.items():
        if part_nanos:
            await _give(connection, purses[kind], part_nanos, ground)
    return Taken(*(taken[kind] for kind in _PURSES))


async def give_back_take(
    connection: AsyncConnection, take_id: UUID, amount_nanos: int, ground: Ground
) -> None:
    """Move the broker's own share from its take to the consumer's funds."""
    await _give(connection, take_id, amount_nanos, ground)


async def _give(
    connection: AsyncConnection, debit: UUID, amount_nanos: int, ground: Ground
) -> None:
    await transfers.post(
        connection,
        Transfer(
            id=uuid7(),
            debit=debit,
            credit=ground.funds,
            amount_nanos=amount_nanos,
            kind=ground.kind,
            reason=ground.reason,
            author=ground.author,
            created_at=ground.at,
            call_id=ground.call_id,
            about_id=ground.about_id,
        ),
    )
