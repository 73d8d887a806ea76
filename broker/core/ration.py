"""Rations what may be done for each account at each endpoint in a day, and for all in a second,
within bounded memory."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Final
from uuid import UUID

PAIRS_MAX: Final = 50_000
SAVED_S: Final = 5.0
"""What all together have for so long may be taken at once."""


class Ration:
    """So much a day for each pair, and so much a second for all together; the days are those of the
    times that are told."""

    def __init__(self, a_day: int, a_second: float) -> None:
        self._a_day = a_day
        self._a_second = a_second
        self._saved = SAVED_S * a_second
        self._saved_at: datetime | None = None
        self._day: date | None = None
        self._taken: Counter[tuple[UUID, int]] = Counter()

    def take(self, account_id: UUID, endpoint: int, now: datetime) -> bool:
        """Take one, for an endpoint by its number; False where there is none left today.

        None is left either for a pair beyond the first PAIRS_MAX of a day, nor for anybody while as
        many are taken as there are a second.
        """
        if now.date() != self._day:
            self._day = now.date()
            self._taken.clear()
        pair = (account_id, endpoint)
        taken = self._taken[pair]
        if taken >= self._a_day or (not taken and len(self._taken) >= PAIRS_MAX):
            return False
        if not self._has_time(now):
            return False
        self._taken[pair] = taken + 1
        return True

    def _has_time(self, now: datetime) -> bool:
        since = now if self._saved_at is None else self._saved_at
        more = max((now - since).total_seconds(), 0.0) * self._a_second
        self._saved_at, self._saved = now, min(self._saved + more, SAVED_S * self._a_second)
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True
