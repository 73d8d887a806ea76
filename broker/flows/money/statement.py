"""Tells an account what it has, and what moved it."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access.accounts import Account, Role
from broker.store.books.statement_totals import By, Grouping, Totals, Whose, read_totals
from broker.store.books.statements import (
    Balance,
    Entry,
    Span,
    exceed,
    read_balance,
    read_entries,
    stream_entries,
)
from broker.store.money import purses
from broker.store.money.purses import Contents

ENTRIES_MAX: Final = 200_000
"""What one export holds, for it is made in memory."""


class PurseKind(enum.StrEnum):
    """One of a provider's purses."""

    PENDING = "pending"
    AVAILABLE = "available"
    IN_TRANSIT = "in_transit"
    OWED = "owed"


async def owner(engine: AsyncEngine, name: str) -> Caller:
    """Return an account as it would look at its own money, for an operator. Raises NotFound."""
    async with engine.connect() as connection:
        account = await account_store.by_name(connection, name)
    return Caller(account.id, account.name, account.role)


async def balance(engine: AsyncEngine, caller: Caller) -> Balance:
    """Return the caller's balance. Raises NotFound for an operator, who has none."""
    async with engine.connect() as connection:
        account = await account_store.by_id(connection, caller.account_id)
        if account.ledger_account is None:
            raise NotFound("An operator has no balance.")
        return await _balance(connection, account)


async def statement(
    engine: AsyncEngine, caller: Caller, span: Span, purse: PurseKind | None = None
) -> list[Entry]:
    """Return the caller's entries, newest first: of a provider, those of all its purses together.

    With `purse` those of this one alone, which show what moved between them too. Raises NotFound
    for an operator, RequestMalformed for a purse of who is no provider.
    """
    async with engine.connect() as connection:
        return await read_entries(connection, await _purses(connection, caller, purse), span)


async def every_entry(
    engine: AsyncEngine, caller: Caller, span: Span, purse: PurseKind | None = None
) -> AsyncIterator[Entry]:
    """Yield all entries of a span, oldest first. Raises as `statement` does, and RequestMalformed
    with code `statement_too_long` beyond ENTRIES_MAX."""
    async with engine.connect() as connection:
        wanted = await _purses(connection, caller, purse)
        # Known before they are sorted: of millions that takes ten seconds.
        if await exceed(connection, wanted, span, ENTRIES_MAX):
            raise RequestMalformed(
                f"There are more than {ENTRIES_MAX} entries; ask for a shorter time.",
                code="statement_too_long",
            )
        async for entry in stream_entries(connection, wanted, span):
            yield entry


async def totals(engine: AsyncEngine, caller: Caller, grouping: Grouping, span: Span) -> Totals:
    """Return what moved the caller's balance, summed. Raises NotFound for an operator,
    RequestMalformed when a provider asks for what only the buyer may know."""
    sells = caller.role is Role.PROVIDER
    if sells and grouping.by not in (By.ENDPOINT, By.DAY):
        raise RequestMalformed("A provider's totals are by endpoint or by day.")
    async with engine.connect() as connection:
        wanted = await _purses(connection, caller, None)
        whose = Whose(caller.account_id, wanted, sells)
        return await read_totals(connection, whose, grouping, span)


async def _purses(
    connection: AsyncConnection, caller: Caller, purse: PurseKind | None
) -> Sequence[UUID]:
    account = await account_store.by_id(connection, caller.account_id)
    if account.ledger_account is None:
        raise NotFound("An operator has no balance.")
    if account.role is not Role.PROVIDER:
        if purse is not None:
            raise RequestMalformed("Only a provider has several purses.")
        return [account.ledger_account]
    every = (await purses.purse_of(connection, account.id)).all()
    return every if purse is None else [dict(zip(PurseKind, every, strict=True))[purse]]


def balance_in(contents: Contents) -> Balance:
    """Return a provider's purses as one balance: held is what it cannot have yet."""
    held_nanos = contents.pending_nanos + contents.transit_nanos
    return Balance(held_nanos + contents.available_nanos - contents.owed_nanos, held_nanos)


async def _balance(connection: AsyncConnection, account: Account) -> Balance:
    if account.ledger_account is None:
        return Balance(posted_nanos=0, held_nanos=0)
    if account.role is not Role.PROVIDER:
        return await read_balance(connection, account.ledger_account)
    wanted = await purses.purse_of(connection, account.id)
    return balance_in(await purses.look_into(connection, wanted))
