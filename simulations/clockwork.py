"""What happens to a market in the course of a run: changes, heartbeats, price ticks, each in turn.

An engine lets calls happen in between, and is the floor on which they do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pricing.book import FloatArray, IntArray
from simulations.agenda import Agenda
from simulations.servers.sites import Change, changes_of
from simulations.world import Seen, World

Progress = Callable[[float, int], bool]
HEAR_S = 1.0
"""How often the broker looks what time has healed: fast enough for what goes by seconds."""


class Stopped(Exception):
    """Whoever watches the run wants no more of it."""

    def __init__(self, at_s: float) -> None:
        super().__init__()
        self.at_s = at_s


class Floor(Protocol):
    """Where calls happen."""

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        ...

    def seen(self) -> Seen:
        """What servers are doing; `served` is counted from one time to the next."""
        ...

    def told(self) -> tuple[tuple[FloatArray, FloatArray], IntArray]:
        """(running, waiting) as agents tell, and the numbers of those that do."""
        ...

    def change(self, now_s: float, change: Change) -> None:
        """Let something happen to a server."""
        ...


class Clockwork:
    """The agenda of a run, and what is on it from the beginning."""

    def __init__(self, world: World, floor: Floor, progress: Progress | None) -> None:
        self.agenda = agenda = Agenda()
        self._world = world
        self._floor = floor
        self._progress = progress
        scenario = world.scenario
        for change in changes_of(scenario):
            agenda.add(change.at_s, self._change, change)
        agenda.repeat(scenario.signals.heartbeat_s, self._beat, 0.0)
        agenda.repeat(HEAR_S, lambda now_s, _: world.desk.hear(now_s), HEAR_S)
        agenda.repeat(scenario.prices.tick_s, self._tick, scenario.prices.tick_s)

    def _change(self, now_s: float, change: Change) -> None:
        self._world.change(change)
        self._floor.change(now_s, change)

    def _beat(self, now_s: float, _: object) -> None:
        self._world.ticker.beat(now_s, *self._floor.told())

    def _tick(self, now_s: float, _: object) -> None:
        book = self._world.tick(now_s, self._floor.seen())
        if book is not None:
            delay_s = self._world.scenario.signals.delay_s
            self.agenda.add(now_s + delay_s, lambda _, new: self._world.publish(new), book)
        if self._progress is not None and not self._progress(now_s, self._floor.ended):
            raise Stopped(now_s)
