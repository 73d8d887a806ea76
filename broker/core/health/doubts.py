"""Whom a breaker has something to say of, here or in another process.

In a large market somebody always is in doubt. So what is asked of one endpoint, or of a few, takes
as long however many others are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from functools import partial
from typing import Final

import numpy as np

from broker.core.columns import Bools, Numbers
from broker.core.health.breaker import Breaker
from broker.core.health.journal import Journal

_FEW: Final = 512
"""Of more endpoints, arrays are sooner done with."""


class Doubts:
    """The breakers of one process, and what was heard of those of others. All times are seconds of
    one monotonic clock."""

    __slots__ = ("_journal", "breakers", "elsewhere", "here")

    def __init__(self, journal: Journal) -> None:
        """`journal` is told who comes in doubt."""
        self._journal = journal
        self.breakers: dict[int, Breaker] = {}
        self.here: set[int] = set()
        """Endpoints whose breaker is open or half-open."""
        self.elsewhere: frozenset[int] = frozenset()
        """Endpoints that other processes have ejected, as last heard of."""

    @property
    def count(self) -> int:
        """So many endpoints are in doubt, here or elsewhere, or a few less."""
        return len(self.here) + len(self.elsewhere)

    def all(self) -> Set[int]:
        """Return the endpoints of which a breaker, here or elsewhere, has something to say."""
        return self.here | self.elsewhere if self.elsewhere else self.here

    def has(self, endpoint: int) -> bool:
        """True when a breaker has something to say of the endpoint, here or elsewhere."""
        return endpoint in self.here or endpoint in self.elsewhere

    def has_any(self, endpoints: Collection[int]) -> bool:
        """True when one has of any of these."""
        return not (self.here.isdisjoint(endpoints) and self.elsewhere.isdisjoint(endpoints))

    def admitting(self, now_s: float) -> Callable[[int], bool] | None:
        """Return what tells of an endpoint whether a call may go there now; None: to any."""
        return partial(self._admits, now_s) if self.here or self.elsewhere else None

    def ejected(self, numbers: Numbers, now_s: float) -> Bools | None:
        """Return which of these endpoints are out of routing now, or None when none is, as mostly
        even while others are."""
        if not self.here and not self.elsewhere:
            return None
        here, elsewhere = self.here, self.elsewhere
        if numbers.size <= _FEW:
            told = numbers.tolist()
            here, elsewhere = here.intersection(told), elsewhere.intersection(told)
        out = {each for each in here if not self.breakers[each].admits(now_s)} | elsewhere
        if not out:
            return None
        # As `np.isin`, in a fifth of the time. Others may know endpoints that came just now.
        places = np.fromiter(out, np.int64, len(out))
        known = np.zeros(int(numbers.max()) + 1, dtype=np.bool_)
        known[places[places < known.size]] = True
        ejected: Bools = known[numbers]
        return ejected if ejected.any() else None

    def ejected_here(self, now_s: float) -> set[int]:
        """Return the endpoints that this process sends no call now."""
        return {each for each in self.here if not self.breakers[each].admits(now_s)}

    def to_tell(self, now_s: float) -> set[int]:
        """Return those of them that others are to hear of: not what was heard from others."""
        return {each for each in self.ejected_here(now_s) if not self.breakers[each].hearsay}

    def hear(self, ejected: frozenset[int]) -> None:
        """Be told, again and again, whom the other processes have ejected."""
        # Whose ejection ends elsewhere gets a probe from here too, not all that comes.
        for endpoint in self.elsewhere - ejected - self.here:
            self.breakers.setdefault(endpoint, Breaker()).doubt()
            self._add(endpoint)
        self._journal.turned += ejected - self.elsewhere
        self.elsewhere = ejected

    def suspect(self, endpoint: int, now_s: float) -> None:
        """Be told that an endpoint has gone silent."""
        self.breakers.setdefault(endpoint, Breaker(window_started_s=now_s)).suspect(now_s)
        self._add(endpoint)

    def prove(self, endpoint: int, now_s: float, began_s: float) -> None:
        """Be told that the answer to a call has begun."""
        if endpoint in self.here and self.breakers[endpoint].prove(now_s, began_s):
            self.here.discard(endpoint)

    def succeed(self, endpoint: int, now_s: float, times: int = 1) -> None:
        """Be told of successes of an endpoint that has a breaker."""
        for _ in range(times):
            self.breakers[endpoint].succeed(now_s)
        self.here.discard(endpoint)

    def fail(self, endpoint: int, now_s: float, began_s: float | None) -> bool:
        """Be told of a failure that counts against the provider; whether that leaves it in doubt.
        `began_s` as in `Breaker.fail`."""
        breaker = self.breakers.setdefault(endpoint, Breaker(window_started_s=now_s))
        breaker.fail(now_s, began_s)
        if breaker.ejection_s:
            self._add(endpoint)
        return bool(breaker.ejection_s)

    def _add(self, endpoint: int) -> None:
        self._journal.turned.append(endpoint)
        self.here.add(endpoint)

    def _admits(self, now_s: float, endpoint: int) -> bool:
        doubtful = endpoint in self.here and not self.breakers[endpoint].admits(now_s)
        return not doubtful and endpoint not in self.elsewhere
