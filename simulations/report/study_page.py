"""The page of a study at one point: policies against each other, and against the best there is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from simulations.cell import world_of
from simulations.fluid.yardstick import Yardstick, most_earned_usd
from simulations.measured.record import Code
from simulations.measured.statistics import Interval, interval
from simulations.measures import MEASURES, Group
from simulations.report.courses import Course, demand_plot, load_plots, price_plots
from simulations.report.drawing import Line, Look, lines_plot
from simulations.report.loops import loops_of
from simulations.report.page import drawn, drawn_all, render
from simulations.report.palette import css_of
from simulations.report.panels import Row, Stack, intervals_plot, stacks_plot
from simulations.report.scales import apart, lasting, number
from simulations.report.words import best_of, titled, verdict
from simulations.scenario import Scenario
from simulations.studies.folder import fingerprint
from simulations.studies.plan import BEST_STATIC, TUNING_SEEDS
from simulations.studies.results import Point, Results
from simulations.studies.tuning import Tuned

ENDS: dict[Code, str] = {
    Code.SERVED: "served",
    Code.STAYED_AWAY: "stayed away",
    Code.PRICED_OUT: "priced out",
    Code.FULL: "all full",
    Code.AWAY: "endpoints away",
    Code.UNFIT: "nothing fits",
    Code.NO_FUNDS: "budget spent",
    Code.FAILED: "failed",
    Code.LATE: "too late",
    Code.CUT: "broke off",
}
_SURPLUS = (
    ("consumers", "consumer_surplus_usd_per_h"),
    ("providers", "provider_surplus_usd_per_h"),
    ("broker", "take_usd_per_h"),
)


def study_page(results: Results, point: Point = (), command: str = "") -> str:
    """Return the page. There is at least one outcome at the point."""
    policy = results.policies[0]
    world = world_of(results.plan.cell(point, policy, results.plan.seeds[0]))
    loops = loops_of(results, point)
    course = Course.of(results, point, world, loops.target)
    plan = results.plan
    return render(
        "study.html",
        results,
        description=world[0].description,
        facts=_facts(results, point, world),
        verdict=verdict(results, point),
        welfare=drawn(intervals_plot(_rows(results, point, "welfare_share"), "%", 480.0)),
        gaps=_gaps(results, point),
        shares=drawn(intervals_plot(_surplus(results, point), "", 480.0)),
        ends=drawn(stacks_plot(_ends(results, point), 480.0)),
        ends_legend=_legend(results, point),
        demand=drawn_all([demand_plot(course)])[0],
        prices=drawn_all(price_plots(course)),
        loads=drawn_all(load_plots(course)),
        table=[(group.value, _table(results, point, group)) for group in Group],
        pairs=_pairs(results, point),
        loops=loops,
        providers=list(_providers(results, point, world[0])),
        tuning=_tuning(results.tuned.get(point)),
        incidents=sorted({each for one in results.outcomes for each in one.incidents})[:5],
        settings=[f"{name}={value}" for name, value in (*plan.settings, *point)],
        command=command,
        code=fingerprint(),
        version=version("model-broker"),
    )


def _facts(
    results: Results, point: Point, world: tuple[Scenario, Yardstick]
) -> list[tuple[str, str]]:
    scenario, best = world
    outcomes = [each for each in results.outcomes if each.point == point]
    calls = sum(each.arrived for each in outcomes) / max(len(outcomes), 1)
    per_h = 3_600.0 / max(scenario.horizon_s - scenario.warm_up_s, 1e-9)
    return [
        ("seeds", str(len(results.plan.seeds))),
        ("time simulated", lasting(scenario.horizon_s)),
        ("of it warm-up", lasting(scenario.warm_up_s)),
        ("calls a run", f"{calls:,.0f}"),
        ("endpoints", str(len(scenario.endpoints))),
        ("fluid optimum", number(best.welfare_usd() * per_h, "USD/h")),
        ("most that one price earns", number(most_earned_usd(scenario) * per_h, "USD/h")),
        *((name, str(value)) for name, value in point),
    ]


def _rows(results: Results, point: Point, measure: str) -> list[Row]:
    return [
        Row(policy, css_of(policy), results.interval(measure, policy, point))
        for policy in results.policies
    ]


def _gaps(results: Results, point: Point) -> object:
    if BEST_STATIC not in results.policies:
        return None
    rows = [
        Row(
            policy,
            css_of(policy),
            results.difference("welfare_share", (policy, BEST_STATIC), point).gap,
        )
        for policy in results.policies
        if policy != BEST_STATIC
    ]
    return drawn(intervals_plot(rows, "%", 480.0))


def _surplus(results: Results, point: Point) -> list[Row]:
    return [
        Row(f"{name}, {policy}", css_of(policy), results.interval(measure, policy, point))
        for name, measure in _SURPLUS
        for policy in results.policies
    ]


def _ends(results: Results, point: Point) -> list[Stack]:
    stacks = []
    for policy in results.policies:
        outcomes = results.of(policy, point)
        sums = {
            code: sum(each.codes.get(code.name.lower(), 0) for each in outcomes) for code in ENDS
        }
        total = max(sum(sums.values()), 1)
        parts = [
            (name, f"c-{code.name.lower()}", sums[code] / total)
            for code, name in ENDS.items()
            if sums[code]
        ]
        stacks.append(Stack(policy, parts))
    return stacks


def _legend(results: Results, point: Point) -> list[tuple[str, str]]:
    seen = {name for stack in _ends(results, point) for name, _, _ in stack.parts}
    return [(name, f"c-{code.name.lower()}") for code, name in ENDS.items() if name in seen]


def _table(results: Results, point: Point, group: Group) -> list[dict[str, Any]]:
    rows = []
    for key, measure in MEASURES.items():
        found = {each: results.interval(key, each, point) for each in results.policies}
        if measure.group is group and any(each.count for each in found.values()):
            best = best_of(key, found)
            cells = [(*_told(found[each], measure.unit), each == best) for each in found]
            rows.append({"title": titled(measure), "meaning": measure.meaning, "cells": cells})
    return rows


def _told(found: Interval, unit: str) -> tuple[str, str]:
    """A mean and half of its interval, the latter empty where there is none."""
    return apart(found.mean, found.half, unit)


def _pairs(results: Results, point: Point) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """By how many points of the bound each policy is above each other one, seed by seed."""
    rows = []
    for one in results.policies:
        cells = []
        for other in results.policies:
            found = results.difference("welfare_share", (one, other), point)
            told = apart(100.0 * found.gap.mean, 100.0 * found.gap.half)
            cells.append(("", "", False) if one == other else (*told, found.is_sure))
        rows.append((one, cells))
    return rows


def _providers(
    results: Results, point: Point, scenario: Scenario
) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    hours = (scenario.horizon_s - scenario.warm_up_s) / 3_600.0
    for place, provider in enumerate(scenario.providers):
        cells = []
        for policy in results.policies:
            made = [each.providers[place] for each in results.of(policy, point)]
            profit = interval([each.profit_usd / hours for each in made])
            even = interval([each.break_even for each in made])
            cells.append((*_told(profit, ""), number(even.mean, "x")))
        yield provider.name, cells


def _tuning(tuned: Tuned | None) -> dict[str, Any] | None:
    if tuned is None:
        return None
    factors, goals = zip(*tuned.tried, strict=True)
    look = Look(
        title="Welfare of static prices",
        width=1_000.0,
        height=200.0,
        x_times=False,
        x_title="multiple of the list prices",
        x_log=True,
        room=20.0,
        marks=(tuned.factor,),
    )
    line = Line("", css_of(BEST_STATIC), goals)
    return {
        "factor": number(tuned.factor, "x"),
        "count": len(factors),
        "seeds": len(TUNING_SEEDS),
        "svg": drawn(lines_plot(factors, [line], look)),
    }
