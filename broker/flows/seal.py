"""Seals the balances of a past moment, so that checks fold only what came after.

A seal never changes. It may lie an hour back or more: a settlement, or a transfer, is dated half an
hour before its commit at the earliest, so nothing can still arrive behind a seal.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RequestMalformed
from broker.store import maintenance

AGE_MIN: Final = timedelta(hours=1)

_LOCK: Final = 0x7365616C  # any number that nothing else locks on


async def seal(engine: AsyncEngine, sealed_before: datetime, now: datetime) -> bool:
    """Seal all balances as of `sealed_before`; False when that much is sealed already.

    Raises RequestMalformed for a moment less than an hour before `now`, by the database's clock
    too: by that one settlements and transfers are dated, and this process's may be fast.
    """
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if min(now, await maintenance.time(connection)) - sealed_before < AGE_MIN:
            raise RequestMalformed("Balances are sealed as of a moment at least an hour ago.")
        last = await maintenance.last_seal(connection)
        if last is not None and last >= sealed_before:
            return False
        await maintenance.insert_seals(connection, sealed_before, last)
    return True
