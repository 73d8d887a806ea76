"""Runs a scenario: the one door into the simulator."""

from __future__ import annotations

from simulations.by_call.engine import Engine
from simulations.by_slice.slices import Slices
from simulations.clockwork import Progress
from simulations.garbage import rarely_collected
from simulations.measured.record import Run
from simulations.pace import pace_of
from simulations.scenario import Pace, Scenario


def run(scenario: Scenario, seed: int, *, progress: Progress | None = None) -> Run:
    """Run a scenario with a seed.

    `progress` is told (seconds of the run gone by, calls ended) at every tick; when it says False
    the run stops and returns what it has. Raises ScenarioMalformed.
    """
    engine = Slices if pace_of(scenario) is Pace.SLICES else Engine
    with rarely_collected():
        return engine(scenario, seed).run(progress)
