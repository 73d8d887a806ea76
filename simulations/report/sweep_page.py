"""The page of a sweep: over one axis lines, over two a heat map, over more a map for each rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import product

from markupsafe import Markup

from simulations.measures import MEASURES, Better
from simulations.report.drawing import Line, Look, lines_plot
from simulations.report.page import drawn, render
from simulations.report.palette import css_of
from simulations.report.panels import Heat, heat_map
from simulations.report.scales import setting
from simulations.report.words import spread, titled
from simulations.studies.folder import fingerprint
from simulations.studies.plan import Axis
from simulations.studies.results import Point, Results

SHOWN = (
    *("welfare_share", "revenue_usd_per_h", "provider_surplus_usd_per_h"),
    *("load", "full_share", "ttft_p95_s", "price_sigma", "reversals_per_h"),
)
MAPS_MAX = 24


def sweep_page(results: Results, command: str = "") -> str:
    """Return the page."""
    plan = results.plan
    return render(
        "sweep.html",
        results,
        description=str(plan.scenario.get("description", "")),
        facts=[
            ("points", str(len(plan.points))),
            ("policies", str(len(results.policies))),
            ("seeds", str(len(plan.seeds))),
            ("runs", str(len(results.outcomes))),
        ],
        verdict=list(_verdict(results)),
        sections=[
            (titled(MEASURES[key]), MEASURES[key].meaning, plots, _is_framed(results, key))
            for key in SHOWN
            if (plots := _plots(results, key))
        ],
        columns=[titled(MEASURES[key]) for key in SHOWN],
        rows=list(_rows(results)),
        settings=[f"{name}={value}" for name, value in plan.settings],
        command=command,
        code=fingerprint(),
        version=version("model-broker"),
    )


def _verdict(results: Results) -> Iterator[str]:
    for policy in results.policies:
        found = [
            (each.mean, spread(each, "%"), point)
            for point in results.plan.points
            if math.isfinite((each := results.interval("welfare_share", policy, point)).mean)
        ]
        if found:
            _, told, point = max(found, key=lambda each: each[0])
            at = ", ".join(f"{name} = {setting(value)}" for name, value in point)
            yield f"{policy} makes the most welfare at {at}: {told} of what could be made."


def _rows(results: Results) -> Iterator[tuple[list[str], str, list[str]]]:
    for point in results.plan.points:
        for policy in results.policies:
            if results.of(policy, point):
                found = [results.interval(key, policy, point) for key in SHOWN]
                cells = [
                    spread(each, MEASURES[key].unit) for key, each in zip(SHOWN, found, strict=True)
                ]
                yield [setting(value) for _, value in point], policy, cells


def _plots(results: Results, measure: str) -> list[tuple[str, Markup]]:
    """The plots of a measure, none where nothing was measured."""
    grid = results.plan.grid
    told = [
        results.interval(measure, policy, point).mean
        for policy in results.policies
        for point in results.plan.points
    ]
    known = [each for each in told if math.isfinite(each)]
    if not known:
        return []
    if len(grid) == 1:
        return [("By policy", drawn(_lines(results, measure, grid[0])))]
    span = min(known), max(known)
    rest = [[(axis.name, value) for value in axis.values] for axis in grid[2:]]
    maps = product(results.policies, product(*rest))
    return [
        (_name(policy, others), drawn(_map(results, measure, policy, others, span)))
        for policy, others in list(maps)[:MAPS_MAX]
    ]


def _is_framed(results: Results, measure: str) -> bool:
    return len(results.plan.grid) > 1 and MEASURES[measure].better is not Better.NEITHER


def _name(policy: str, others: Sequence[tuple[str, object]]) -> str:
    return ", ".join((policy, *(f"{name} = {setting(value)}" for name, value in others)))


def _lines(results: Results, measure: str, axis: Axis) -> str:
    numbers = [float(each) for each in axis.values if isinstance(each, int | float)]
    are_numbers = len(numbers) == len(axis.values) and len(numbers) > 1
    x = numbers if are_numbers else [float(place) for place in range(len(axis.values))]
    lines = []
    for policy in results.policies:
        points = [((axis.name, value),) for value in axis.values]
        found = [results.interval(measure, policy, point) for point in points]
        low, high = [each.low for each in found], [each.high for each in found]
        lines.append(Line(policy, css_of(policy), [each.mean for each in found], (low, high)))
    evenly = len(x) < 3 or abs((x[1] - x[0]) - (x[-1] - x[-2])) < 1e-6 * abs(x[-1] - x[0])
    look = Look(
        title=MEASURES[measure].title,
        width=1_000.0,
        y_unit=MEASURES[measure].unit,
        x_times=False,
        x_title=axis.name,
        x_log=are_numbers and not evenly and x[0] > 0.0,
    )
    return lines_plot(x, lines, look)


def _map(
    results: Results, measure: str, policy: str, others: Point, span: tuple[float, float]
) -> str:
    down, across = results.plan.grid[0], results.plan.grid[1]
    cells = [
        [
            results.interval(measure, policy, ((down.name, y), (across.name, x), *others)).mean
            for x in across.values
        ]
        for y in down.values
    ]
    better, unit = MEASURES[measure].better, MEASURES[measure].unit
    heat = Heat(
        x_name=across.name,
        x=[setting(each) for each in across.values],
        y_name=down.name,
        y=[setting(each) for each in down.values],
        cells=cells,
        # A word would not fit into a cell; it stands in the heading.
        unit=unit if unit[:1] in ("%", "x") else "",
        span=span,
        best_is_high=None if better is Better.NEITHER else better is Better.HIGHER,
    )
    return heat_map(heat)
