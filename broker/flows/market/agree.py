"""Agrees with the other broker processes, in tens of milliseconds, on what each has under way.

Calls by deployment, ejected endpoints and calls by key go through Valkey in one question. A process
that hears of no other asks once a tick; one that does asks every EVERY_S, so what one has begun the
others know after two such spans at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from broker.core.health.pulse import Pulse
from broker.flows.access.keyring import Keyring
from broker.live.bulletin import exchange_all
from broker.live.loads import Counts, RefusalMeter
from broker.live.room import Live

_log = structlog.get_logger(__name__)

EVERY_S: Final = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class Own:
    """What this process tells the others: its calls by deployment, the endpoints that it has
    ejected, and the calls under way of those keys that may have only so many."""

    counts: Counts
    ejected: frozenset[int]
    under_way: Mapping[str, int] = field(default_factory=dict)


def own_of(
    pulse: Pulse, refusals: RefusalMeter, now_s: float, keyring: Keyring | None = None
) -> Own:
    """Return what a process's pulse is worth telling; `now_s` is the pulse's monotonic clock."""
    counts = Counts(
        in_flight=pulse.in_flight.copy(),
        refused_per_s=refusals.per_s(pulse.refused, now_s),
        service_s=pulse.service_s.copy(),
    )
    under_way = {} if keyring is None else keyring.counted()
    return Own(counts, frozenset(pulse.doubts.to_tell(now_s)), under_way)


class Accord:
    """The agreement, as one process keeps it."""

    def __init__(
        self,
        live: Live,
        own: Callable[[], Own],
        heard: Callable[[], None],
        tick_s: float,
    ) -> None:
        """`heard` is called after each exchange; then `live` has the newest of the others."""
        self._live = live
        self._own = own
        self._heard = heard
        self._tick_s = tick_s

    async def exchange(self) -> None:
        """Tell the others, and hear them; while Valkey is away they stay as last heard of."""
        own, live = self._own(), self._live
        await exchange_all(
            live.valkey,
            (
                live.loads.telling(own.counts),
                live.ejections.telling(own.ejected),
                live.callers.telling(own.under_way),
            ),
        )
        self._heard()

    async def run(self, now_s: Callable[[], float]) -> None:
        """Exchange for ever; ends by cancellation. `now_s` is monotonic."""
        while True:
            begun_s = now_s()
            try:
                await self.exchange()
            except Exception:  # one bad exchange must not leave the process alone for good
                _log.exception("nothing was agreed with the other processes")
            pause_s = EVERY_S if self._live.loads.in_company else self._tick_s
            await asyncio.sleep(max(0.0, begun_s + pause_s - now_s()))
