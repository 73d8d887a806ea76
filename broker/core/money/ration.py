"""Rations what may be done for each account at each endpoint in a day, within bounded memory."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Final
from uuid import UUID

PAIRS_MAX: Final = 50_000


class Ration:
    """So much a day for each pair; the days are those of the times that are told."""

    def __init__(self, a_day: int) -> None:
        self._a_day = a_day
        self._day: date | None = None
        self._taken: Counter[tuple[UUID, int]] = Counter()

    def take(self, account_id: UUID, endpoint: int, now: datetime) -> bool:
        """Take one, for an endpoint by its number; False where there is none left today.

        None is left either for a pair beyond the first PAIRS_MAX of a day.
        """
        if now.date() != self._day:
            self._day = now.date()
            self._taken.clear()
        pair = (account_id, endpoint)
        taken = self._taken[pair]
        if taken >= self._a_day or (not taken and len(self._taken) >= PAIRS_MAX):
            return False
        self._taken[pair] = taken + 1
        return True
