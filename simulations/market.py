"""Runs a scenario: the one door into the simulator."""

from __future__ import annotations

from simulations.clockwork import Progress
from simulations.engine import Engine
from simulations.garbage import rarely_collected
from simulations.pace import pace_of
from simulations.record import Run
from simulations.scenario import Pace, Scenario
from simulations.slices import Slices


def run(scenario: Scenario, seed: int, *, progress: Progress | None = None) -> Run:
    """Run a scenario with a seed.

    `progress` is told (seconds of the run gone by, calls ended) at every tick; when it says False
    the run stops and returns what it has. Raises ScenarioMalformed.
    """
    engine = Slices if pace_of(scenario) is Pace.SLICES else Engine
    with rarely_collected():
        return engine(scenario, seed).run(progress)
