"""Says in sentences what a study found, and no more than it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from simulations.measured.statistics import Interval
from simulations.measured.turns import SWING
from simulations.measures import MEASURES, Better, Measure
from simulations.pace import pace_told
from simulations.report.scales import apart, number
from simulations.studies.plan import BEST_STATIC
from simulations.studies.results import Point, Results

GLUE = "\N{NO-BREAK SPACE}"
STILL = ("posted", BEST_STATIC)
MOVING = ("price_sigma", "reversals_per_h", "swings_per_h", "settling_s")
"""Measures by which prices that stand still would be best, which says nothing."""
WORTH_SAYING = 0.002
"""A difference below this share of the bound is called none."""


def spread(found: Interval, unit: str) -> str:
    """A mean with half of its interval, without a unit that is a word."""
    mean, half = apart(found.mean, found.half, unit)
    return f"{mean}{GLUE}\N{PLUS-MINUS SIGN}{GLUE}{half}" if half else mean


def titled(measure: Measure) -> str:
    """A measure's name with its unit, where that is a word."""
    unit = measure.unit.removeprefix("%").removeprefix("x").strip()
    return f"{measure.title}, {unit}" if unit else measure.title


def verdict(results: Results, point: Point = ()) -> list[str]:
    """The sentences at the head of a report."""
    return [
        *_of_welfare(results, point),
        *_stability(results, point),
        *pace(results, point),
    ]


def pace(results: Results, point: Point = ()) -> Iterator[str]:
    """How the runs were made, where that is worth saying."""
    cell = results.plan.cell(point, results.policies[0], results.plan.seeds[0])
    told = pace_told(cell.text.build(cell.settings))
    if told is not None:
        yield told


def _of_welfare(results: Results, point: Point) -> Iterator[str]:
    found = {each: results.interval("welfare_share", each, point) for each in results.policies}
    known = [each for each in found if math.isfinite(found[each].mean)]
    if not known:
        yield "No call came that is worth what it costs to serve: there is no welfare to compare."
        return
    yield from _welfare(results, point, found, known)
    yield from _against_static(results, point)


def _welfare(
    results: Results, point: Point, found: Mapping[str, Interval], known: Sequence[str]
) -> Iterator[str]:
    best = max(known, key=_welfare_of(results, point))
    alike = [
        each
        for each in known
        if each != best and not results.difference("welfare_share", (best, each), point).is_sure
    ]
    told = f"{best} made the most of the market: {spread(found[best], '%')} of the bound on the"
    told += " welfare that any policy makes on average"
    yield f"{told}; {_and(alike)} cannot be told from it." if alike else f"{told}."
    if found[best].mean > 1.0:
        yield "More than the bound: by chance these seeds drew calls that are worth more than most."


def _against_static(results: Results, point: Point) -> Iterator[str]:
    if BEST_STATIC not in results.policies:
        return
    static = results.interval("welfare_share", BEST_STATIC, point)
    if max(results.policies, key=_welfare_of(results, point)) != BEST_STATIC:
        yield f"The best static price made {spread(static, '%')} of it."
    above, below, alike = [], [], []
    for policy in results.policies:
        if policy != BEST_STATIC:
            found = results.difference("welfare_share", (policy, BEST_STATIC), point)
            told = f"{policy} by {_points(found.gap)}"
            if not found.is_sure or abs(found.gap.mean) < WORTH_SAYING:
                alike.append(policy)
            elif found.gap.mean > 0.0:
                above.append(told)
            else:
                below.append(told)
    if above:
        yield f"Above it, seed by seed, in points of the bound: {_and(above)}."
    if below:
        yield f"Below it, in points of the bound: {_and(below)}."
    if alike:
        yield f"Not to be told from it over {static.count} seeds: {_and(alike)}."


def _welfare_of(results: Results, point: Point) -> Callable[[str], float]:
    def mean(policy: str) -> float:
        found = results.interval("welfare_share", policy, point).mean
        return found if math.isfinite(found) else -math.inf

    return mean


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def _points(gap: Interval) -> str:
    """A difference of shares in points of the bound."""
    mean, half = apart(abs(100.0 * gap.mean), 100.0 * gap.half)
    return f"{mean}{GLUE}\N{PLUS-MINUS SIGN}{GLUE}{half}" if half else mean


def _stability(results: Results, point: Point) -> Iterator[str]:
    moving = [each for each in results.policies if each not in STILL]
    told = [
        f"{each} {number(results.interval('reversals_per_h', each, point).mean)}, of them"
        f" {number(results.interval('swings_per_h', each, point).mean)} by more than {SWING:.0%}"
        f" ({number(results.interval('price_sigma', each, point).mean, '% a tick')})"
        for each in moving
    ]
    if told:
        yield f"Reversals of price an hour, and how far it moves: {'; '.join(told)}."


def best_of(measure: str, found: Mapping[str, Interval]) -> str | None:
    """The policy that is best by a measure, beyond what chance explains at a glance."""
    better = MEASURES[measure].better
    known = {
        policy: each
        for policy, each in found.items()
        if math.isfinite(each.mean) and not (measure in MOVING and policy in STILL)
    }
    if better is Better.NEITHER or len(known) < 2:
        return None
    sign = 1.0 if better is Better.HIGHER else -1.0
    ranked = sorted(known, key=lambda policy: -sign * known[policy].mean)
    first, second = (known[policy] for policy in ranked[:2])
    # Of one seed each the halves are no numbers, and nothing is above them.
    gap, chance = sign * (first.mean - second.mean), math.hypot(first.half, second.half)
    return ranked[0] if gap > chance else None
