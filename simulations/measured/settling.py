"""How long prices take to settle after a shock: until they stay within 5% of where they end.

A shock is a jump of the rate at which calls come, and a server that comes, goes, fails or slows
down; those that follow each other within five minutes are one, and the time runs from the last of
them. The price is the mean over a minute, for single calls move it too. Where it ends is its mean
over the second half until the next shock; where it wanders by more than 5% then, three of its
standard deviations are the band, or chance would be taken for a price that never settles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray
from simulations.fluid.capacity import breaks_s
from simulations.measured.record import Run
from simulations.measured.series import prices_over_list
from simulations.scenario import Scenario

BAND = 0.05
SPREADS = 3.0
SMOOTH_S = 60.0
APART_S = 300.0
POINTS_MIN = 12


@dataclass(frozen=True, slots=True)
class Shock:
    """Jumps that are one: the first of them, the last, and the first of the next shock or the end
    of the run."""

    from_s: float
    over_s: float
    until_s: float


def shocks_of(scenario: Scenario) -> list[Shock]:
    """The shocks from the warm-up on."""
    moments = [moment for _, each in scenario.endpoints for moment in breaks_s(each)]
    for each in scenario.classes:
        moments += getattr(each.arrivals, "from_s", ())
    moments = sorted({each for each in moments if scenario.warm_up_s <= each < scenario.horizon_s})
    first = [
        place for place, at in enumerate(moments) if not place or at - moments[place - 1] >= APART_S
    ]
    ends = [*first[1:], len(moments)][: len(first)]
    after_s = [*(moments[place] for place in first[1:]), scenario.horizon_s][: len(first)]
    return [
        Shock(moments[begin], moments[end - 1], until_s)
        for begin, end, until_s in zip(first, ends, after_s, strict=True)
    ]


def settling_s(run: Run, scenario: Scenario) -> float:
    """Seconds, the mean over shocks and endpoints; NaN without a shock.

    A price that does not settle before the next shock counts as the whole time until then.
    """
    at_s, price = run.ticks["at_s"], prices_over_list(run.ticks, scenario)
    times = []
    for endpoint in range(len(run.endpoint_names)):
        mine = (run.ticks["endpoint"] == endpoint) & np.isfinite(price)
        for shock in shocks_of(scenario):
            during = mine & (at_s > shock.over_s) & (at_s <= min(shock.until_s, run.ended_s))
            times.append(_settled(at_s[during] - shock.over_s, price[during]))
    known = [each for each in times if math.isfinite(each)]
    return math.fsum(known) / len(known) if known else math.nan


def _settled(after_s: FloatArray, price: FloatArray) -> float:
    """Seconds after the shock at which the price enters the band for good; NaN of few points."""
    if after_s.size < POINTS_MIN:
        return math.nan
    span = max(round(SMOOTH_S * after_s.size / after_s[-1]), 1)
    smooth = np.convolve(price, np.ones(span) / span, mode="same")
    # At the ends of the convolution there are fewer points than the span.
    smooth /= np.convolve(np.ones(price.size), np.ones(span) / span, mode="same")
    end = smooth[smooth.size // 2 :]
    level = end.mean()
    band = max(BAND, SPREADS * float(end.std()) / level)
    outside = np.flatnonzero(np.abs(smooth / level - 1.0) > band)
    return float(after_s[outside[-1]]) if outside.size else 0.0
