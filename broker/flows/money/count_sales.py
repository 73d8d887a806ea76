"""Counts what each provider has sold in the calendar month, for plans whose take depends on it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.money.takes import has_tiers
from broker.store.money import plans


async def count_sales(engine: AsyncEngine, now: datetime, *, whole: bool = False) -> bool:
    """Count the newest hours, or with `whole` all of the month; False where no plan asks for it.

    Brokers see the new counts when they next load the market, which is within half a minute.
    """
    async with engine.begin() as connection:
        if not has_tiers(await plans.list_plans(connection)):
            return False
        await plans.count_sales(connection, now, whole=whole)
    return True
