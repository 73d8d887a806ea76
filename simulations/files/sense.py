"""Says which values of a scenario make no sense together or alone, though each is of its type."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from broker.core.columns import AUTO
from simulations.demand import Arrivals, Mmpp, Steps, Trace
from simulations.scenario import Scenario, ScenarioMalformed
from simulations.supply import Brownout, EndpointSpec, Outage

_ANY = frozenset({"seed", "enters_s", "peak_s", "margin"})
"""May be below zero."""
_POSITIVE = frozenset(
    {
        *("horizon_s", "tick_s", "heartbeat_s", "slice_s", "together_max", "period_s", "speed"),
        *("kept_calls_max", "kept_ticks_max", "capacity", "batch_max", "servers", "instances"),
        *("kv_tokens_max", "step_tokens_max", "c0_s", "mean_service_s", "slowdown", "every_s"),
        *("mean", "most", "mean_usd", "most_usd", "elasticity", "deadline_s", "memory_s"),
        *("headroom", "accounts", "budget_period_s", "patience_s", "ttft_goal_s", "tpot_goal_s"),
        *("mean_stay_s", "multiple", "longest_part"),
    }
)
_SHARES = frozenset(
    {
        *("loss", "failures", "quality", "quality_min", "domains", "declared", "swing"),
        "longest_part",
    }
)
_FINITE = frozenset(
    {"horizon_s", "tick_s", "heartbeat_s", "warm_up_s", "period_s", "mean_stay_s", "speed"}
)
_RATES = frozenset({"rate_per_s", "rates_per_s"})
RATE_MAX = 1e7
"""Calls a second of one class at most: those that come in one slice are all in memory."""
CHANGES_MAX = 1e6
"""Of a rate that changes at random, before the horizon or until a call comes: each is drawn."""
CV_LEAST, CV_MAX = 0.001, 100.0
"""Of the gaps between calls: of a larger one next to all are 0, and there would be no next call."""
Place = tuple[str | int, ...]


def make_sense(scenario: Scenario) -> None:
    """Look at all of a scenario. Raises ScenarioMalformed, with the first field that is amiss."""
    _numbers(scenario, ())
    if scenario.warm_up_s >= scenario.horizon_s:
        told = f"must be below horizon_s, which is {scenario.horizon_s:g}, or nothing is counted"
        raise _amiss(("warm_up_s",), told)
    _names_apart([each.name for each in scenario.providers], ("providers",))
    _names_apart([each.name for each in scenario.classes], ("classes",))
    for place, provider in enumerate(scenario.providers):
        at = ("providers", place, "endpoints")
        _names_apart([each.name for each in provider.endpoints], at)
        for number, endpoint in enumerate(provider.endpoints):
            _times(endpoint, (*at, number))
    for place, each in enumerate(scenario.classes):
        _arrivals(each.arrivals, scenario.horizon_s, ("classes", place, "arrivals"))
    _models(scenario)


def _numbers(value: object, path: Place) -> None:
    for name, each, place in _parts(value, path):
        if isinstance(each, bool | str) or each is None:
            continue
        if isinstance(each, int | float):
            _number(name, each, place)
        else:
            _numbers(each, place)


def _parts(value: object, path: Place) -> Iterator[tuple[str, object, Place]]:
    """What a value of a scenario is made of: (field, part, where)."""
    name = next((each for each in reversed(path) if isinstance(each, str)), "")
    if isinstance(value, tuple):
        yield from ((name, each, (*path, place)) for place, each in enumerate(value))
    elif name == "domains" and isinstance(value, dict):
        yield from ((name, each, (*path, key)) for key, each in value.items())
    elif dataclasses.is_dataclass(value) and type(value).__module__.startswith("simulations."):
        for field in dataclasses.fields(value):
            yield field.name, getattr(value, field.name), (*path, field.name)


def _number(name: str, value: float, path: Place) -> None:
    if name in _POSITIVE and value <= 0:
        raise _amiss(path, f"must be above 0, not {value}")
    if name not in _ANY and value < 0:
        raise _amiss(path, f"must not be below 0, and is {value}")
    if name in _SHARES and value > 1:
        raise _amiss(path, f"must be from 0 to 1, not {value}")
    if name == "headroom" and value < 1:
        raise _amiss(path, f"must be at least 1, not {value}")
    if name in _RATES and value > RATE_MAX:
        raise _amiss(path, f"must be at most {RATE_MAX:,.0f} calls a second, not {value:g}")
    if name in _FINITE and math.isinf(value):
        raise _amiss(path, "must have an end")


def _times(endpoint: EndpointSpec, path: Place) -> None:
    if endpoint.exits_s <= endpoint.enters_s:
        raise _amiss((*path, "exits_s"), "must come after 'enters_s'")
    _spans(endpoint.outages, (*path, "outages"))
    _spans(endpoint.brownouts, (*path, "brownouts"))


def _spans(spans: Sequence[Outage | Brownout], path: Place) -> None:
    over_s = -math.inf
    for place, each in sorted(enumerate(spans), key=lambda pair: pair[1].from_s):
        if each.to_s <= each.from_s:
            raise _amiss((*path, place, "to_s"), "must come after 'from_s'")
        if each.from_s < over_s:
            raise _amiss((*path, place, "from_s"), "begins before another is over")
        over_s = each.to_s


def _arrivals(arrivals: Arrivals, horizon_s: float, path: Place) -> None:
    cv = getattr(arrivals, "cv", 1.0)
    if cv != 0.0 and not CV_LEAST <= cv <= CV_MAX:
        told = f"must be 0, or from {CV_LEAST:g} to {CV_MAX:g}, not {cv:g}"
        raise _amiss((*path, "cv"), told)
    match arrivals:
        case Mmpp():
            _states(arrivals, horizon_s, path)
        case Steps(from_s, rates_per_s):
            _alike(rates_per_s, from_s, (*path, "rates_per_s"), "'from_s'")
            _ascending(from_s, (*path, "from_s"))
        case Trace(arrival_s):
            _ascending(arrival_s, (*path, "arrival_s"))
            for name in ("tokens_in", "tokens_out"):
                if told_of := getattr(arrivals, name):
                    _alike(told_of, arrival_s, (*path, name), "'arrival_s'")


def _states(states: Mmpp, horizon_s: float, path: Place) -> None:
    rates_per_s, stays_s = states.rates_per_s, states.mean_stay_s
    _alike(stays_s, rates_per_s, (*path, "mean_stay_s"), "'rates_per_s'")
    cycle_s = math.fsum(stays_s)
    calls = math.fsum(rate * stay for rate, stay in zip(rates_per_s, stays_s, strict=True))
    cycles = max(horizon_s / cycle_s, 1.0 / calls if calls else 0.0)
    if cycles * len(stays_s) > CHANGES_MAX:
        raise _amiss(
            (*path, "mean_stay_s"),
            f"are so short that the rate would change {cycles * len(stays_s):.2g} times before "
            f"the horizon or until a call comes: at most {CHANGES_MAX:,.0f} are drawn",
        )


def _alike(one: Sequence[float], other: Sequence[float], path: Place, named: str) -> None:
    if not other or len(one) != len(other):
        raise _amiss(path, f"must have one value for each of {named}, and at least one")


def _ascending(moments_s: Sequence[float], path: Place) -> None:
    for place, (one, other) in enumerate(pairwise(moments_s)):
        if other < one:
            raise _amiss((*path, place + 1), f"must not be below the one before it, {one:g}")


def _names_apart(names: Sequence[str], path: Place) -> None:
    seen: Counter[str] = Counter()
    for place, name in enumerate(names):
        if seen[name]:
            raise _amiss((*path, place, "name"), f"there is another '{name}'")
        seen[name] += 1


def _models(scenario: Scenario) -> None:
    models = {each.model for _, each in scenario.endpoints}
    known = {AUTO, *models, *scenario.endpoint_names}
    for place, each in enumerate(scenario.classes):
        if each.model not in known:
            told = f"no endpoint has '{each.model}'; there are {', '.join(sorted(models))}"
            raise _amiss(("classes", place, "model"), told)


def _amiss(path: Place, told: str) -> ScenarioMalformed:
    return ScenarioMalformed(".".join(map(str, path)), f"{told}.")
