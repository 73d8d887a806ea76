"""How high the load is while more is asked than can be served, and has been for a while.

Then a controller has nothing to do but to hold the load at its target, so what it misses by is its
own. When more is asked than fits the fluid optimum tells: its servers are full.
"""

from __future__ import annotations

import numpy as np

from pricing.book import FloatArray
from simulations.fluid.yardstick import Yardstick
from simulations.measured.record import Run
from simulations.scenario import Scenario

PERSISTENT_S = 300.0
"""Demand in excess for so long is persistent; what came before was a shock."""
FULL = 0.999


def excess_load(run: Run, scenario: Scenario, best: Yardstick) -> float:
    """The mean load over time and slots, as controllers see it; NaN without such a time."""
    ticks, windows = run.ticks, best.load.shape[0]
    endpoint = ticks["endpoint"].astype(np.int64)
    window = np.searchsorted(best.edges_s, ticks["at_s"], side="left") - 1
    inside = (window >= 0) & (window < windows)
    since_s = full_since(best)[np.clip(window, 0, windows - 1), endpoint]
    counted = inside & (ticks["at_s"] - since_s > PERSISTENT_S) & (ticks["present"] > 0.0)
    if not counted.any():
        return float("nan")
    slots = np.array([each.capacity for _, each in scenario.endpoints], dtype=np.float64)
    return float(np.average(ticks["load"][counted], weights=slots[endpoint[counted]]))


def full_since(best: Yardstick) -> FloatArray:
    """By window and endpoint, since when the optimum has been full; infinite where it is not."""
    since = np.full(best.load.shape, np.inf)
    for window, load in enumerate(best.load):
        before = since[window - 1] if window else np.full(load.size, np.inf)
        fresh = np.where(np.isfinite(before), before, best.edges_s[window])
        since[window] = np.where(np.nan_to_num(load) >= FULL, fresh, np.inf)
    return since
