"""Runs a scenario: the one door into the simulator."""

from __future__ import annotations

from simulations.engine import Engine, Progress
from simulations.record import Run
from simulations.scenario import Scenario


def run(scenario: Scenario, seed: int, *, progress: Progress | None = None) -> Run:
    """Run a scenario with a seed.

    `progress` is told (seconds of the run gone by, calls ended) at every tick; when it says False
    the run stops and returns what it has. Raises ScenarioMalformed.
    """
    return Engine(scenario, seed).run(progress)
