"""Searches the best static price: the multiple of all list prices that makes the most welfare.

The first round tries multiples over the whole width of the bands, a constant factor apart; each
further round tries as many between the two neighbours of the best. Each is run on seeds of its own,
the same for all, and the mean of their welfare decides. Welfare has one peak where demand falls
with price, but for chance; the first round is fine enough not to miss a broad one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from simulations.cell import Setting, world_of
from simulations.files.overrides import LIST_SCALE
from simulations.scenario import Scenario
from simulations.studies.bench import Bench
from simulations.studies.plan import TUNING_SEEDS, Plan

FIRST, FURTHER, ROUNDS = 9, 4, 3
GOAL = "welfare_usd_per_h"
_DIGITS = 6


class Tuned(msgspec.Struct, frozen=True):
    """The best static price at a point, and all that was tried: (multiple, mean of the goal)."""

    point: tuple[Setting, ...]
    factor: float
    tried: tuple[tuple[float, float], ...]


def cells_of_tuning() -> int:
    """Return how many cells a search takes at most."""
    return (FIRST + FURTHER * (ROUNDS - 1)) * len(TUNING_SEEDS)


def tune(plan: Plan, point: Sequence[Setting], bench: Bench) -> Tuned:
    """Search at one point of a grid. Of equals the lowest price is the best."""
    scenario, _ = world_of(plan.cell(point, "posted", TUNING_SEEDS[0]))
    low, high = _width(scenario)
    known: dict[float, float] = {}
    factors = _between(low, high, FIRST)
    for _ in range(ROUNDS):
        fresh = [each for each in factors if each not in known]
        known |= dict(zip(fresh, _goals(plan, point, bench, fresh), strict=True))
        ranked = sorted(known)
        best = ranked.index(max(ranked, key=lambda each: (known[each], -each)))
        around = ranked[max(best - 1, 0)], ranked[min(best + 1, len(ranked) - 1)]
        factors = _between(*around, FURTHER + 2)
    tried = tuple(sorted(known.items()))
    return Tuned(tuple(point), ranked[best], tried)


def _goals(
    plan: Plan, point: Sequence[Setting], bench: Bench, factors: Sequence[float]
) -> list[float]:
    """The mean of the goal for each multiple."""
    cells = [
        plan.cell(point, "posted", seed, (LIST_SCALE, factor))
        for factor in factors
        for seed in TUNING_SEEDS
    ]
    goals = [each.figure(GOAL) for each in bench.run(cells)]
    return [float(each) for each in np.reshape(goals, (-1, len(TUNING_SEEDS))).mean(axis=1)]


def _between(low: float, high: float, count: int) -> list[float]:
    spread = np.geomspace(low, high, count)
    return sorted({float(f"{each:.{_DIGITS}g}") for each in spread})


def _width(scenario: Scenario) -> tuple[float, float]:
    """The multiples at which the last of all list prices has reached its floor, and its ceiling."""
    falls, rises = [1.0], [1.0]
    for _, each in scenario.endpoints:
        band = each.band
        for name in ("in_micros", "out_micros", "call_nanos"):
            listed = getattr(band, f"list_{name}")
            if listed:
                falls.append(getattr(band, f"floor_{name}") / listed)
                rises.append(getattr(band, f"ceiling_{name}") / listed)
    assert math.isfinite(max(rises))
    return min(falls), max(rises)
