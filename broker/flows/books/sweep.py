"""Gives back what is held, or used, for calls that nobody will settle any more.

A hold past its expiry is given back, unless the process that opened it lives: then its call may
have ended in an outage of the database, and its settlement, kept back, is still to come. A living
process can lose a hold as well. Such a hold is given back SPARE_S after its expiry, once the
process has held its lease for SPARE_S without a break, by when all that it kept back is written.
A process that is not known to live is one whose lease was found free (`release_orphans`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import asyncpg
import structlog

from broker.store import leases, ledger
from broker.store.calls import quotes

SPARE_S: Final = 900.0
HOLDS_MAX: Final = 1_000
"""Of one statement."""

_log = structlog.get_logger()


async def sweep_expired(pool: asyncpg.Pool, now: datetime) -> int:
    """Settle up to HOLDS_MAX holds past their expiry as expired; return how many.

    A hold that is being settled at this moment is passed over.
    """
    async with pool.acquire() as connection:
        living = await leases.registered(connection)
        lasting = await leases.find_lasting(connection, SPARE_S)
        count = await ledger.expire_holds(connection, now, HOLDS_MAX, living)
        if lasting and count < HOLDS_MAX:
            spared = [each for each in living if each not in lasting]
            long_ago = now - timedelta(seconds=SPARE_S)
            count += await ledger.expire_holds(connection, long_ago, HOLDS_MAX - count, spared)
    if count:
        _log.warning("holds_expired", count=count)
    return count


async def release_orphans(pool: asyncpg.Pool, grace_s: float = 30.0) -> int:
    """Settle up to HOLDS_MAX holds of broker processes that are dead as released; return how many.

    A process is dead when its lease (`broker.flows.process.lease`) was found free by a sweep
    `grace_s` ago and has not been taken since.
    """
    async with pool.acquire() as connection, connection.transaction():
        dead = await leases.find_dead(connection, grace_s)
        if not dead:
            return 0
        count = await ledger.release_holds_of(connection, dead, HOLDS_MAX)
        await leases.forget(connection, dead)
    _log.warning("orphaned_holds_released", count=count, processes=dead)
    return count


async def open_orphaned_quotes(pool: asyncpg.Pool) -> int:
    """Open the quotes again that dead processes have used and held nothing for; return how many."""
    async with pool.acquire() as connection, connection.transaction():
        count = await quotes.open_again(connection)
    if count:
        _log.warning("orphaned_quotes_opened", count=count)
    return count
