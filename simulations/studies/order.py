"""Which cells of a study are run first: the longest, or a worker would be left alone with one.

Longest first takes at most a third longer than the best order there is (Graham, "Bounds on
Multiprocessing Timing Anomalies", SIAM Journal on Applied Mathematics 17, 1969); any other may take
twice as long. How long a cell takes is told by how much there is to do in it, not by a clock, so
the order is the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from simulations.cell import Cell
from simulations.fluid.atoms import calls_between
from simulations.pace import pace_of
from simulations.scenario import Pace, Scenario

IN_SLICES = 0.125
"""What a call takes in a run by slices, over what one takes call by call."""
A_TICK = 12.0
"""What a tick of prices takes, with its heartbeats, in calls one by one,"""
A_SHADOW_TICK = 45.0
"""and one that solves a linear programme."""


def longest_first(cells: Sequence[Cell]) -> list[Cell]:
    """Order cells by what there is to do in them; those alike, which may share what a worker has
    found out of their scenario, stay as they were. Raises ScenarioFileMalformed."""
    known: dict[tuple[int, bytes], float] = {}
    sizes = []
    for cell in cells:
        # Seeds make no difference, and most cells differ by their seed.
        told = id(cell.plain), msgspec.json.encode(cell.settings)
        if told not in known:
            known[told] = work_of(cell.text.build(cell.settings))
        sizes.append(known[told])
    order = sorted(range(len(cells)), key=lambda place: -sizes[place])
    return [cells[place] for place in order]


def work_of(scenario: Scenario) -> float:
    """Return about how much there is to do in a run, in calls one by one."""
    horizon_s = scenario.horizon_s
    calls = math.fsum(calls_between(x.arrivals, 0.0, horizon_s) for x in scenario.classes)
    by_slices = pace_of(scenario) is Pace.SLICES
    tick = A_SHADOW_TICK if scenario.prices.controller == "shadow" else A_TICK
    return calls * (IN_SLICES if by_slices else 1.0) + tick * horizon_s / scenario.prices.tick_s
