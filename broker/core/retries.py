"""A budget for failovers, shared by all calls of a process, so that an outage makes no retry storm.

Each call deposits a fifth of a failover, each failover withdraws one; a floor of a few per second
keeps a quiet broker able to fail over. After Finagle's RetryBudget.
"""

from __future__ import annotations

SHARE = 0.2
FLOOR_PER_S = 5.0
RESERVE_S = 10.0
"""Deposits and floor are kept for so long."""
AGED_EVERY_S = 0.05
"""Calls that begin within so short a time are deposited together."""


class RetryBudget:
    """Told of calls, asked for failovers. Times are seconds of one monotonic clock."""

    def __init__(self, now_s: float) -> None:
        self._floor = FLOOR_PER_S * RESERVE_S
        self._deposits = 0.0
        self._at_s = now_s
        self.made = 0
        """Failovers that were paid for, since the process began."""
        self.denied = 0

    def left(self, now_s: float) -> float:
        """Return how many failovers it would pay for now."""
        self._age(now_s)
        return self._floor + self._deposits

    def deposit(self, now_s: float) -> None:
        """Be told that a call begins."""
        if now_s - self._at_s > AGED_EVERY_S:
            self._age(now_s)
        self._deposits += SHARE

    def deposit_many(self, calls: int, now_s: float) -> None:
        """Be told that so many calls begin."""
        if now_s - self._at_s > AGED_EVERY_S:
            self._age(now_s)
        self._deposits += SHARE * calls

    def withdraw(self, now_s: float) -> bool:
        """Ask for one failover; False when the budget is spent."""
        self._age(now_s)
        if self._deposits >= 1:
            self._deposits -= 1
        elif self._floor >= 1:
            self._floor -= 1
        else:
            self.denied += 1
            return False
        self.made += 1
        return True

    def _age(self, now_s: float) -> None:
        passed_s = now_s - self._at_s
        if passed_s <= 0.0:
            return
        self._at_s = now_s
        self._floor = min(self._floor + passed_s * FLOOR_PER_S, FLOOR_PER_S * RESERVE_S)
        self._deposits *= max(1.0 - passed_s / RESERVE_S, 0.0)
