"""How long prices take to settle after a shock: until they stay within 5% of where they end.

A shock is a jump of the rate at which calls come, and a server that comes, goes, fails or slows
down. The price is the mean over a minute, for single calls move it too; where it ends is its mean
over the last third until the next shock.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from pricing.book import FloatArray
from simulations.fluid.capacity import breaks_s
from simulations.record import Run
from simulations.scenario import Scenario
from simulations.series import prices_over_list

BAND = 0.05
SMOOTH_S = 60.0


def shocks_s(scenario: Scenario) -> list[float]:
    """The moments at which something jumps, from the warm-up on."""
    moments = [moment for _, each in scenario.endpoints for moment in breaks_s(each)]
    for each in scenario.classes:
        moments += getattr(each.arrivals, "from_s", ())
    return sorted({each for each in moments if scenario.warm_up_s <= each < scenario.horizon_s})


def settling_s(run: Run, scenario: Scenario) -> float:
    """Seconds, the mean over shocks and endpoints; NaN without a shock.

    A price that does not settle before the next shock counts as the whole time until then.
    """
    moments = [*shocks_s(scenario), min(scenario.horizon_s, run.ended_s)]
    if len(moments) < 2:
        return math.nan
    at_s, price = run.ticks["at_s"], prices_over_list(run.ticks, scenario)
    times = []
    for endpoint in range(len(run.endpoint_names)):
        mine = run.ticks["endpoint"] == endpoint
        for begin, end in pairwise(moments):
            during = mine & (at_s > begin) & (at_s <= end) & np.isfinite(price)
            times.append(_settled(at_s[during] - begin, price[during]))
    known = [each for each in times if math.isfinite(each)]
    return math.fsum(known) / len(known) if known else math.nan


def _settled(after_s: FloatArray, price: FloatArray) -> float:
    """Seconds after the shock at which the price enters the band for good; NaN of few points."""
    if after_s.size < 12:
        return math.nan
    span = max(round(SMOOTH_S * after_s.size / after_s[-1]), 1)
    smooth = np.convolve(price, np.ones(span) / span, mode="same")
    # At the ends of the convolution there are fewer points than the span.
    smooth /= np.convolve(np.ones(price.size), np.ones(span) / span, mode="same")
    level = smooth[-(smooth.size // 3) :].mean()
    outside = np.flatnonzero(np.abs(smooth / level - 1.0) > BAND)
    return float(after_s[outside[-1]]) if outside.size else 0.0
