"""When a late attempt gets a second one beside it, and how often that may be.

A second request to another server, once the first is later than 95 of 100 are, takes most of the
tail for a twentieth more work (Dean & Barroso, "The Tail at Scale", CACM 56, 2013). How late that
is, is learned for each endpoint with a step up or down for each answer, such that 95 of 100 lie
below where it rests (Robbins & Monro, "A Stochastic Approximation Method", 1951), on a logarithmic
scale, for times are positive and differ by orders.
"""

from __future__ import annotations

from typing import Final

from broker.core.health.by_number import ByNumber

SHARE: Final = 0.05
"""So many of the calls that may be hedged are."""
RESERVE: Final = 10.0
"""So many hedges may be saved up."""
QUANTILE: Final = 0.95
STEP: Final = 0.1
SEEN_MIN: Final = 20
"""Before so many answers nothing is late."""


_STEPS: Final = (1.0 + QUANTILE * STEP, 1.0 - (1.0 - QUANTILE) * STEP)
"""Up and down."""
_FIRST_STEPS: Final = (1.0 + QUANTILE * 5.0 * STEP, 1.0 - (1.0 - QUANTILE) * 5.0 * STEP)
"""Large ones: the first answer seen may have been far from the tail."""


class HedgeBudget:
    """Told of calls that may be hedged, asked for hedges; of all calls of a process."""

    def __init__(self) -> None:
        self._balance = 0.0
        self.made = 0
        """Hedges, since the process began."""
        self.won = 0
        """Those that answered first."""

    def deposit(self) -> None:
        """Be told that such a call begins."""
        self._balance = min(self._balance + SHARE, RESERVE)

    def withdraw(self) -> bool:
        """Ask for one hedge; False when the budget is spent."""
        if self._balance < 1.0:
            return False
        self._balance -= 1.0
        self.made += 1
        return True


class Tails:
    """How late is late, by endpoint number, of streams and of whole answers."""

    def __init__(self) -> None:
        self._late_ms, self._seen = ByNumber(), ByNumber()
        """The time, and how many answers were seen: of whole ones by twice an endpoint's number, of
        streams by one more."""

    def tell(self, endpoint: int, ttft_ms: float, *, streamed: bool) -> None:
        """Be told how long an answer's first content took, or the whole of one that is whole."""
        key = 2 * endpoint + streamed
        seen = self._seen.get(key)
        self._seen.put(key, seen + 1.0)
        if not seen:
            self._late_ms.put(key, max(ttft_ms, 0.01))
            return
        late_ms = self._late_ms.get(key)
        up, down = _STEPS if seen >= SEEN_MIN else _FIRST_STEPS
        self._late_ms.put(key, late_ms * (up if ttft_ms > late_ms else down))

    def late_ms(self, endpoint: int, *, streamed: bool) -> float | None:
        """Return after how many ms an answer is later than 95 of 100; None: not known yet."""
        key = 2 * endpoint + streamed
        return None if self._seen.get(key) < SEEN_MIN else self._late_ms.get(key)
