"""Says in sentences what a study found, and no more than it found."""

from __future__ import annotations

import math
from collections.abc import Iterator

from simulations.measures import MEASURES, Better, Measure
from simulations.report.scales import bare, number
from simulations.statistics import Difference, Interval
from simulations.studies.plan import BEST_STATIC
from simulations.studies.results import Point, Results

WORTH_SAYING = 0.002
"""A difference below this share of the bound is called none."""


def spread(found: Interval, unit: str) -> str:
    """A mean with half of its interval, without a unit that is a word."""
    mean = bare(found.mean, unit)
    if not math.isfinite(found.half):
        return mean
    half = bare(found.half, "%" if unit.startswith("%") else "")
    return f"{mean.removesuffix('%')} \N{PLUS-MINUS SIGN} {half}"


def titled(measure: Measure) -> str:
    """A measure's name with its unit, where that is a word."""
    unit = measure.unit.removeprefix("%").removeprefix("x").strip()
    return f"{measure.title}, {unit}" if unit else measure.title


def verdict(results: Results, point: Point = ()) -> list[str]:
    """The sentences at the head of a report."""
    return [
        *_welfare(results, point),
        *_against_static(results, point),
        *_stability(results, point),
    ]


def _welfare(results: Results, point: Point) -> Iterator[str]:
    ranked = sorted(
        ((results.interval("welfare_share", each, point), each) for each in results.policies),
        key=lambda pair: -pair[0].mean if math.isfinite(pair[0].mean) else math.inf,
    )
    if not ranked or not math.isfinite(ranked[0][0].mean):
        return
    best, policy = ranked[0]
    yield (
        f"{policy} made the most of the market: {spread(best, '%')} of the welfare that any policy "
        "could have made."
    )


def _against_static(results: Results, point: Point) -> Iterator[str]:
    if BEST_STATIC not in results.policies:
        return
    static = results.interval("welfare_share", BEST_STATIC, point)
    yield f"The best static price made {spread(static, '%')} of it."
    for policy in results.policies:
        if policy != BEST_STATIC:
            gap = results.difference("welfare_share", (policy, BEST_STATIC), point)
            yield f"{policy} {_compared(gap)}"


def _compared(found: Difference) -> str:
    gap = found.gap
    if not found.is_sure:
        return f"cannot be told from it ({_points(gap)} over {gap.count} seeds)."
    if abs(gap.mean) < WORTH_SAYING:
        return f"differs from it by less than it matters ({_points(gap)})."
    side = "more" if gap.mean > 0.0 else "less"
    return f"made {side} than it: by {_points(gap)}, seed by seed over {gap.count} seeds."


def _points(gap: Interval) -> str:
    """A difference of shares in points of the bound."""
    mean, half = abs(100.0 * gap.mean), 100.0 * gap.half
    told = f"{mean:.1f} points of the bound"
    return told if not math.isfinite(half) else f"{told} \N{PLUS-MINUS SIGN} {half:.1f}"


def _stability(results: Results, point: Point) -> Iterator[str]:
    moving = [each for each in results.policies if each not in ("posted", BEST_STATIC)]
    told = [
        f"{each} {number(results.interval('reversals_per_h', each, point).mean)}"
        f" ({number(results.interval('price_sigma', each, point).mean, '% a tick')})"
        for each in moving
    ]
    if told:
        yield f"Reversals of price an hour, and how far it moves: {', '.join(told)}."


def best_of(measure: str, found: dict[str, Interval]) -> str | None:
    """The policy that is best by a measure, beyond what chance explains at a glance."""
    better = MEASURES[measure].better
    known = {policy: each for policy, each in found.items() if math.isfinite(each.mean)}
    if better is Better.NEITHER or len(known) < 2:
        return None
    sign = 1.0 if better is Better.HIGHER else -1.0
    ranked = sorted(known, key=lambda policy: -sign * known[policy].mean)
    first, second = (known[policy] for policy in ranked[:2])
    apart = sign * (first.mean - second.mean)
    halves = math.hypot(
        *(each.half if math.isfinite(each.half) else 0.0 for each in (first, second))
    )
    return ranked[0] if apart > halves else None
