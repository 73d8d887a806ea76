"""Seals the balances of a past moment, so that checks fold only what came after.

A seal never changes. It may lie an hour back or more: a settlement, or a transfer, is dated half an
hour before its commit at the earliest, so nothing can still arrive behind a seal.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RequestMalformed
from broker.store import maintenance

AGE_MIN: Final = timedelta(hours=1)
OPEN_MAX: Final = 50_000
"""Settlements that the checks of each minute fold, which takes them half a second of a processor;
with more, it is sealed between two days too. Each seal is a row for each account that moved."""

_LOCK: Final = 0x7365616C  # any number that nothing else locks on


async def seal_due(engine: AsyncEngine, now: datetime, open_max: int = OPEN_MAX) -> bool:
    """Seal as of the last full hour that is old enough, where a day (of UTC) has begun since the
    last seal, or more than `open_max` settlements would be sealed; False where nothing is due."""
    before = (now - AGE_MIN).replace(minute=0, second=0, microsecond=0)
    async with engine.connect() as connection:
        last = await maintenance.last_seal(connection)
        again = last is not None and last.astimezone(UTC).date() >= before.astimezone(UTC).date()
        if last is not None and again:
            settled = await maintenance.count_settled(connection, last, before, open_max + 1)
            if settled <= open_max:
                return False
    return await seal(engine, before, now, for_checks=again)


async def seal(
    engine: AsyncEngine, sealed_before: datetime, now: datetime, *, for_checks: bool = False
) -> bool:
    """Seal all balances as of `sealed_before`; False when that much is sealed already.

    Earnings mature by no seal that was made `for_checks`.

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
        await maintenance.insert_seals(connection, sealed_before, last, for_checks=for_checks)
    return True
