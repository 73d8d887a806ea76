"""Gives back what is held for calls that nobody will settle any more."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import structlog

from broker.store import leases, ledger

_log = structlog.get_logger()


async def sweep_expired(pool: asyncpg.Pool, now: datetime, limit: int = 1_000) -> int:
    """Settle up to `limit` holds past their expiry as expired; return how many.

    A hold that is being settled at this moment is passed over.
    """
    async with pool.acquire() as connection:
        count = await ledger.expire_holds(connection, now, limit)
    if count:
        _log.warning("holds_expired", count=count)
    return count


async def release_orphans(pool: asyncpg.Pool, grace_s: float = 30.0, limit: int = 1_000) -> int:
    """Settle up to `limit` holds of broker processes that are dead as released; return how many.

    A process is dead when its lease (`broker.flows.lease`) was found free by a sweep `grace_s` ago
    and has not been taken since.
    """
    async with pool.acquire() as connection, connection.transaction():
        dead = await leases.find_dead(connection, grace_s)
        if not dead:
            return 0
        count = await ledger.release_holds_of(connection, dead, limit)
        await leases.forget(connection, dead)
    _log.warning("orphaned_holds_released", count=count, processes=dead)
    return count
