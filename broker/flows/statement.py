"""Tells an account what it has, and what moved it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import NotFound
from broker.flows.authenticate import Caller
from broker.store import accounts as account_store
from broker.store.statements import Balance, Entry, Span, read_balance, read_entries


async def balance(engine: AsyncEngine, caller: Caller) -> Balance:
    """Return the caller's balance. Raises NotFound for an operator, who has none."""
    async with engine.connect() as connection:
        return await read_balance(connection, await _ledger_account(connection, caller))


async def balance_of(engine: AsyncEngine, name: str) -> Balance:
    """Return an account's balance by its name, nothing for an operator. Raises NotFound."""
    async with engine.connect() as connection:
        account = await account_store.by_name(connection, name)
        if account.ledger_account is None:
            return Balance(posted_nanos=0, held_nanos=0)
        return await read_balance(connection, account.ledger_account)


async def statement(engine: AsyncEngine, caller: Caller, span: Span) -> list[Entry]:
    """Return the caller's entries, newest first. Raises NotFound for an operator."""
    async with engine.connect() as connection:
        return await read_entries(connection, await _ledger_account(connection, caller), span)


async def _ledger_account(connection: AsyncConnection, caller: Caller) -> UUID:
    account = await account_store.by_id(connection, caller.account_id)
    if account.ledger_account is None:
        raise NotFound("An operator has no balance.")
    return account.ledger_account
