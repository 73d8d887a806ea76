"""How far a limit may grow at once: where all places are taken and yet nothing takes longer, it
leaps, as TCP's slow start does (Jacobson, 1988).

What was let in by one leap shows itself before the next; and no leap goes to where there was
trouble when last there was any, for what refuses whoever is too many is not slow before that.
"""

from __future__ import annotations

import math
from typing import Final

AT_EASE: Final = 2.0
LEAP: Final = 1.5
"""By so much the limit may grow where things take less than AT_EASE times as long as usual: even if
all that is more had to wait, it would take less than 4 times as long, which is no sign of a
queue."""
LEAP_OF_FEW: Final = 2.0
FEW_ARE: Final = 16.0
"""Below so many it may double: who was held back to the least has its calls again within five
seconds."""
SHORT_OF_TROUBLE: Final = 0.7
_LONG_AGO: Final = -math.inf  # one for all: each limit would make its own


class Leaps:
    """The leaps of one limit. Times are seconds of one clock."""

    __slots__ = ("_due_s", "_trouble_from", "_troubled")

    def __init__(self) -> None:
        self._trouble_from = math.inf
        """With so many under way some were refused or given up, after a time in which none were."""
        self._troubled = False
        """True since then, until as many as may be are served."""
        self._due_s = _LONG_AGO
        """Until then, what the last leap let in has not ended."""

    def meet_trouble(self, under_way: int) -> None:
        """Be told that some were refused or given up with so many under way."""
        if not self._troubled:  # what serves nobody says nothing of how many it could serve
            self._troubled, self._trouble_from = True, float(under_way)

    def grow(self, limit: float, busiest: int, longer: float, now_s: float, took_s: float) -> float:
        """Return how far a limit may grow of which all places, `busiest`, were taken without any
        trouble, things taking `longer` times what is usual, and `took_s`; no less than it is."""
        self._troubled = False
        if busiest > self._trouble_from:
            self._trouble_from = math.inf
        if longer >= AT_EASE or now_s < self._due_s:
            return limit
        self._due_s = now_s + 2 * took_s
        leap = LEAP_OF_FEW if limit < FEW_ARE else LEAP
        return max(limit, min(leap * limit, SHORT_OF_TROUBLE * self._trouble_from))
