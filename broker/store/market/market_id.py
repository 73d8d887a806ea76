"""What tells one market from another on the same Valkey, and one time of it from an earlier one."""

from __future__ import annotations

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.tables import ledger_accounts


async def market_id(connection: AsyncConnection) -> str:
    """Return the id of the database's market: that of its one account for the world outside."""
    world = select(ledger_accounts.c.id).where(ledger_accounts.c.kind == "world")
    return str((await connection.execute(world)).scalar_one())


async def draw_epoch(connection: AsyncConnection) -> int:
    """Return the moment by the database's clock, in microseconds since 1970.

    Nothing else of a database that was restored from a backup is sure to be later than before.
    """
    now = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    return int((await connection.execute(now)).scalar_one())
