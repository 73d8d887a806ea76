"""Which pace a scenario is run at, and how long its slices are.

Slices know shared processors, whose calls are alike but for their lengths, and no call that must
be looked at while it is under way; they are worth it where many calls come in each.
"""

from __future__ import annotations

import math

import numpy as np

from simulations.demand import Foresight
from simulations.fluid.atoms import calls_between
from simulations.fluid.capacity import alone_s
from simulations.scenario import Pace, Scenario, ScenarioMalformed
from simulations.supply import EndpointSpec, SharingServer

CAPACITY_SHARE = 0.02
"""Of all capacity on offer, what a group of calls that are decided on the same counts may take."""
SERVICE_SHARE = 0.2
"""Of what a usual call takes on an idle server, the longest that a slice may be."""
CALLS_MIN = 50.0
"""Fewer calls in a slice are done sooner one by one."""
GROUP_MIN = 8.0
_INSTEAD = "use `events`"


def pace_of(scenario: Scenario) -> Pace:
    """The pace that a scenario is run at: of itself, slices where they can tell it and are worth
    it. Raises ScenarioMalformed where slices are asked for and cannot."""
    pace = scenario.pacing.pace
    if pace is Pace.EVENTS:
        return pace
    amiss = _amiss(scenario)
    if amiss is not None:
        if pace is Pace.SLICES:
            raise amiss
        return Pace.EVENTS
    return Pace.SLICES if pace is Pace.SLICES or _is_large(scenario) else Pace.EVENTS


def pace_told(scenario: Scenario) -> str | None:
    """Return a sentence on the pace, where it is not what one would expect: call by call where
    slices would be worth it and cannot tell the scenario, or slices."""
    if pace_of(scenario) is Pace.SLICES:
        return (
            f"Simulated in slices of {1_000.0 * slice_s_of(scenario):.3g} ms at most: calls that"
            " come together are decided on together."
        )
    amiss = _amiss(scenario)
    if scenario.pacing.pace is Pace.EVENTS or amiss is None or not _is_large(scenario):
        return None
    return f"Simulated call by call, which takes longer: slices know nothing of {amiss.field}."


def slice_s_of(scenario: Scenario) -> float:
    """How long slices are at most, in seconds."""
    took_s = min(
        (
            float(alone_s(each.server, np.array(of.tokens_in.mean), np.array(of.tokens_out.mean)))
            for _, each in scenario.endpoints
            for of in scenario.classes
        ),
        default=math.inf,
    )
    return min(scenario.pacing.slice_s, SERVICE_SHARE * took_s)


def group_of(scenario: Scenario, capacity: float) -> int:
    """How many calls are decided on the same counts, where so much capacity is on offer."""
    return int(min(max(CAPACITY_SHARE * capacity, 1.0), scenario.pacing.together_max))


def _is_large(scenario: Scenario) -> bool:
    horizon_s = scenario.horizon_s
    calls = math.fsum(calls_between(x.arrivals, 0.0, horizon_s) for x in scenario.classes)
    capacity = math.fsum(each.capacity for _, each in scenario.endpoints)
    return (
        calls / horizon_s * slice_s_of(scenario) >= CALLS_MIN
        and group_of(scenario, capacity) >= GROUP_MIN
    )


def _amiss(scenario: Scenario) -> ScenarioMalformed | None:
    """What a scenario has that only the pace `events` simulates."""
    for place, provider in enumerate(scenario.providers):
        for number, endpoint in enumerate(provider.endpoints):
            name = _too_much(endpoint)
            if name is not None:
                field = f"providers.{place}.endpoints.{number}.{name}"
                return ScenarioMalformed(field, f"the pace `slices` knows none of it; {_INSTEAD}")
    for place, each in enumerate(scenario.classes):
        if each.foresight is Foresight.QUEUE:
            field = f"classes.{place}.foresight"
            return ScenarioMalformed(field, f"in the pace `slices` nobody sees lines; {_INSTEAD}")
        if each.hedge:
            field = f"classes.{place}.hedge"
            told = "in the pace `slices` nobody sees which call is late"
            return ScenarioMalformed(field, f"{told}; {_INSTEAD}")
    return None


def _too_much(endpoint: EndpointSpec) -> str | None:
    """The field that stands against it."""
    return None if isinstance(endpoint.server, SharingServer) else "server"
