"""The end of calls: settles and counts those that have ended, many one after the other.

Nothing is decided by it, but for who has a budget. Of one call it would be work of many steps that
the processor's caches have lost since the last; of many, one after the other, they have them.
"""

from __future__ import annotations

from typing import Final

from simulations.measured.record import Code
from simulations.servers.sites import Site
from simulations.visit import Visit, worth_of
from simulations.world import World

TOGETHER: Final = 64
_SERVED: Final = Code.SERVED


class Closing:
    """Of one run."""

    def __init__(self, world: World, sites: tuple[Site, ...]) -> None:
        self._world = world
        self._sites = sites
        self._over: list[tuple[Visit, Code, float]] = []
        self.ended = 0
        """Calls that have ended and been counted."""

    def add(self, visit: Visit, code: Code, now_s: float) -> None:
        """Be told that a call has ended, and how."""
        self._over.append((visit, code, now_s))
        if len(self._over) >= TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Settle what was held, by the ledger's recipe, and count all of whom was told."""
        world, over, self._over = self._world, self._over, []
        self.ended += len(over)
        for visit, code, now_s in over:
            e2e_s, worth = now_s - visit.arrival_s, 0.0
            if visit.dispatch is not None:
                settled = visit.settlement(world.listing)
                world.books.settle(visit.account, visit.hold, settled)
            if code is _SERVED:
                place, attempt = visit.place, visit.attempt
                assert attempt is not None
                worth = worth_of(visit, self._sites[attempt.candidate.number], e2e_s)
                world.served[place] += 1
                world.worths[place] += worth
            world.tally.add(visit.row(code, e2e_s, worth))
