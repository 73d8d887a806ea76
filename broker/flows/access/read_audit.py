"""Reads the audit log."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store.access import audit
from broker.store.access.audit import Entry, Sought


async def read_audit(
    engine: AsyncEngine, sought: Sought, *, before: UUID | None, limit: int
) -> list[Entry]:
    """Return up to `limit` entries, newest first, before the id `before`."""
    async with engine.connect() as connection:
        return await audit.list_entries(connection, sought, before, limit)
