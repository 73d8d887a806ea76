"""What tells one market from another on the same Valkey: an id as old as the schema."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import ledger_accounts


async def market_id(connection: AsyncConnection) -> str:
    """Return the id of the database's market: that of its one account for the world outside."""
    world = select(ledger_accounts.c.id).where(ledger_accounts.c.kind == "world")
    return str((await connection.execute(world)).scalar_one())
