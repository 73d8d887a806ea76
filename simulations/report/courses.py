"""The plots of a study over time: demand, and price and load of each kind of endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pricing.book import FloatArray
from simulations.fluid.yardstick import Yardstick
from simulations.measured.series import Series, known, mean_known
from simulations.measured.settling import shocks_of
from simulations.report.drawing import Line, Look, lines_plot
from simulations.report.palette import css_of
from simulations.scenario import Scenario
from simulations.studies.results import Point, Results

BOUND = "fluid optimum"
KINDS_MAX = 12
CALM_CALLS, CALM_LOADS = 3, 5
"""Points of a moving mean."""
LOAD_SHOWN = 2.0
"""Loads above are drawn at the edge."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its title and what stands below it."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Course:
    """All that plots over time are made of."""

    scenario: Scenario
    best: Yardstick
    by_policy: dict[str, Series]
    target: float | None
    """The load at which prices stand still, where all policies share one."""

    @classmethod
    def of(
        cls,
        results: Results,
        point: Point,
        world: tuple[Scenario, Yardstick],
        target: float | None = None,
    ) -> Course:
        """Of one point of a study."""
        courses = {each: results.course(each, point) for each in results.policies}
        there = {policy: course for policy, course in courses.items() if course is not None}
        return cls(*world, there, target)

    @property
    def at_s(self) -> list[float]:
        """The points in time."""
        return next(iter(self.by_policy.values())).at_s

    def look(self, title: str, **more: object) -> Look:
        """How all plots over time look."""
        look = Look(
            title=title,
            before=self.scenario.warm_up_s,
            marks=[each.from_s for each in shocks_of(self.scenario) if each.from_s > 0.0],
        )
        return replace(look, **more)  # type: ignore[arg-type]


def demand_plot(course: Course) -> Plot:
    """Calls that came, and calls that were served, by policy."""
    first = next(iter(course.by_policy.values()))
    lines = [Line("came", "p-offered", first.offered_per_s)]
    lines += [
        Line(policy, css_of(policy), _calm(each.served_per_s))
        for policy, each in course.by_policy.items()
    ]
    look = course.look("Calls", y_unit="/s", zero=True, width=1_000.0, height=240.0)
    return Plot("Calls that came, and calls that were served", lines_plot(course.at_s, lines, look))


def price_plots(course: Course) -> list[Plot]:
    """Prices over list, by kind of endpoint, on one scale."""
    return _by_kind(course, "price", "x list", course.best.price)


def load_plots(course: Course) -> list[Plot]:
    """Load as controllers see it, by kind of endpoint."""
    return _by_kind(course, "load", "%", None)


def _by_kind(course: Course, name: str, unit: str, best: FloatArray | None) -> list[Plot]:
    kinds = alike(course.scenario)[:KINDS_MAX]
    sets = [_lines(course, name, members, best) for _, members in kinds]
    told = [each for lines in sets for line in lines for each in line.y if np.isfinite(each)]
    is_log = name == "price" and bool(told) and max(told) > 2.5 * min(told) > 0.0
    size = (1_000.0, 280.0, 96.0) if len(kinds) == 1 else (480.0, 220.0, 84.0)
    levels = ((course.target, "target"),) if name == "load" and course.target else ()
    low, high = (min(told), max(told)) if told else (0.0, 1.0)
    if name == "load":
        # What is refused without end would press all others flat.
        high = min(max(high, course.target or 0.0), LOAD_SHOWN)
    span = (low / 1.1, high * 1.1) if is_log else (0.0, high * 1.08 or 1.0)
    plots = []
    for (title, _), lines in zip(kinds, sets, strict=True):
        look = course.look(
            title,
            y_unit=unit,
            is_log=is_log,
            y_span=span,
            width=size[0],
            height=size[1],
            room=size[2],
            levels=levels,
        )
        plots.append(Plot(title, lines_plot(course.at_s, lines, look)))
    return plots


def _lines(
    course: Course, name: str, members: Sequence[int], best: FloatArray | None
) -> list[Line]:
    lines = [
        Line(policy, css_of(policy), _shown(name, known(getattr(each, name))[list(members)]))
        for policy, each in course.by_policy.items()
    ]
    if best is not None:
        at_s = np.array(course.at_s)
        window = np.searchsorted(course.best.edges_s, at_s, side="left") - 1
        inside = (window >= 0) & (window < best.shape[0])
        path = np.full(at_s.size, np.nan)
        path[inside] = mean_known(list(best[window[inside]][:, list(members)].T))
        lines.append(Line(BOUND, css_of(BOUND), path.tolist()))
    return lines


def _shown(name: str, rows: FloatArray) -> list[float]:
    """The mean of rows; loads are calmed, for they are of some dozen calls."""
    mean = [float(each) for each in mean_known(list(rows))]
    return _calm(mean, CALM_LOADS) if name == "load" else mean


def _calm(values: Sequence[float], span: int = CALM_CALLS) -> list[float]:
    """A short moving mean, for calls of a few seconds are noise; NaN stays where it is."""
    padded = np.pad(np.array(values), span // 2, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, span)
    calm = mean_known(list(windows.T))
    return [
        float(each) if np.isfinite(value) else value
        for each, value in zip(calm, values, strict=True)
    ]


def alike(scenario: Scenario) -> list[tuple[str, list[int]]]:
    """Endpoints that differ in nothing but names: what they are called together, their places."""
    groups: dict[str, list[int]] = {}
    for place, (provider, each) in enumerate(scenario.endpoints):
        told = repr((replace(each, name=""), provider.strategy))
        groups.setdefault(told, []).append(place)
    names = scenario.endpoint_names
    return [
        (names[members[0]] + (f" and {len(members) - 1} alike" if members[1:] else ""), members)
        for members in groups.values()
    ]
