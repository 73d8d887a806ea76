"""Spends a key's monthly budget evenly: says what a good answer is worth to it at this moment."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.decision import Decision
from broker.core.money.pacing import Pace
from broker.core.requirements import Requirements
from broker.errors import RequestMalformed
from broker.live.paces import Paces
from broker.store.away import DATABASE_AWAY
from broker.store.books.budgets import BudgetKind, read_budgets
from pricing.money import PICOS_PER_NANO

EVERY_S: Final = 10.0
"""So often it is looked at what is spent, while there are calls."""
KEYS_MAX: Final = 10_000


class Pacer:
    """The paces of the keys whose calls ask for it, as one process knows them."""

    def __init__(self, engine: AsyncEngine, paces: Paces) -> None:
        self._engine = engine
        self._paces = paces
        self._known: dict[str, Pace] = {}
        self._lock = asyncio.Lock()

    async def pace(self, wanted: Requirements, key_id: str | None, now: datetime) -> Requirements:
        """Return what is asked for with what a good answer is worth now.

        Raises RequestMalformed with code `budget_missing` for a key without a monthly budget.
        """
        key = key_id or ""
        known = self._known.get(key)
        if known is None or now.timestamp() - known.at_s >= EVERY_S:
            async with self._lock:
                known = self._known.get(key)
                if known is None or now.timestamp() - known.at_s >= EVERY_S:
                    known = await self._look(key, known, now)
        return msgspec.structs.replace(wanted, value_nanos=known.value_nanos)

    def saw(self, key_id: str | None, decision: Decision) -> None:
        """Be told what a call could have cost."""
        known = self._known.get(key_id or "")
        if known is not None and decision.plan:
            mean = float(decision.costs_picos.mean()) / PICOS_PER_NANO
            self._known[key_id or ""] = known.saw(mean)

    async def _look(self, key: str, known: Pace | None, now: datetime) -> Pace:
        """Look at the books, and step on from what any process knew last."""
        now_s = now.timestamp()
        try:
            async with self._engine.connect() as connection:
                standing = await read_budgets(connection, key, now)
        except DATABASE_AWAY:
            return known or Pace(now_s, 0)  # the hold will tell that the books are away
        month = next((each for each in standing if each.kind is BudgetKind.MONTH), None)
        if month is None or month.limit_nanos is None:
            raise RequestMalformed(
                "broker.weights: 'budget' spends a key's monthly budget, and this key has none.",
                code="budget_missing",
            )
        told = await self._paces.of(key)
        if told is None or (known is not None and known.at_s > told.at_s):
            told = known
        if told is None:
            made = Pace(now_s, month.spent_nanos)
        elif now_s - told.at_s < EVERY_S:
            made = told  # another process has just looked
        else:
            left_s = (_month_end(now) - now).total_seconds()
            made = told.stepped(month.spent_nanos, month.limit_nanos, left_s, now_s)
        if known is not None and known.usual_nanos:
            made = msgspec.structs.replace(made, usual_nanos=known.usual_nanos)
        if made is not told:
            await self._paces.keep(key, made)
        if len(self._known) >= KEYS_MAX and key not in self._known:
            self._known.pop(next(iter(self._known)))
        self._known[key] = made
        return made


def _month_end(now: datetime) -> datetime:
    """Return the end of the UTC month."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
