"""Opens accounts, each with its ledger account, and tells who has one."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.store.access import accounts as account_store
from broker.store.access import audit
from broker.store.access.accounts import Account, Role


async def open_account(
    engine: AsyncEngine, name: str, role: Role, *, author: str, now: datetime
) -> Account:
    """Open an account. Raises RequestMalformed for a bad name, Conflict for a taken one."""
    async with engine.begin() as connection:
        return await open_in(connection, name, role, author, now)


async def open_in(
    connection: AsyncConnection, name: str, role: Role, author: str, now: datetime
) -> Account:
    """Open an account in the caller's transaction. Raises as `open_account` does."""
    account = await account_store.create(connection, role, name, now)
    deed = audit.Deed(author, "open_account", f"accounts/{name}", {"role": role.value})
    await audit.record(connection, deed, now)
    return account


async def list_accounts(
    engine: AsyncEngine, *, role: Role | None, after: UUID | None, limit: int
) -> list[Account]:
    """Return up to `limit` accounts, oldest first, beginning after the id `after`."""
    async with engine.connect() as connection:
        return await account_store.list_accounts(connection, role=role, after=after, limit=limit)
