"""Runs a scenario."""

from __future__ import annotations

from collections.abc import Callable

from simulations.record import Run
from simulations.scenario import Scenario

Progress = Callable[[float, int], bool]
"""Told (seconds of the run gone by, calls ended) now and then; False stops the run, which then
returns what it has."""


def run(scenario: Scenario, seed: int, *, progress: Progress | None = None) -> Run:
    """Run a scenario with a seed. Raises ScenarioMalformed."""
    raise NotImplementedError
