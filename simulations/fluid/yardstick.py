"""The most welfare that any policy could make of a scenario, and the prices that would do it.

Demand and servers become a fluid: in each window of time calls come at their mean rates, cut into
atoms of one value and length, and servers work at the most that they can do when they are full.
The linear program of `pricing.equilibrium` then says who should be served where. Its value bounds
the expected welfare of every policy, for welfare is concave in what is asked and in what can be
served (Gallego & van Ryzin, Management Science 40, 1994); its duals are the prices at which all who
should be served would come, and nobody else.

What is left out makes the bound higher, never lower: chance, lines, faults, budgets, and that what
comes within a window does not come all at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pricing.book import FloatArray
from pricing.equilibrium import WelfareOptimum, revenue_optimum, welfare_optimum
from simulations.fluid.atoms import calls_between
from simulations.fluid.capacity import breaks_s
from simulations.fluid.kinds import Kinds
from simulations.scenario import Scenario

WINDOWS_MAX = 96
PRICES = 12
"""Of a menu. With 40 it takes six times as long, and differs by 1 %."""


@dataclass(frozen=True, slots=True, eq=False)
class Yardstick:
    """By window of time, from the end of the warm-up on."""

    edges_s: FloatArray
    """One more than windows."""
    welfare_usd_per_s: FloatArray
    price: FloatArray
    """(windows, endpoints): the best price over the list price; NaN while an endpoint is away."""
    load: FloatArray
    """(windows, endpoints): the share of what the servers of its kind can do that is used."""

    def welfare_usd(self, until_s: float = np.inf) -> float:
        """Of the whole time, or of that before a moment."""
        spans = np.clip(until_s - self.edges_s[:-1], 0.0, np.diff(self.edges_s))
        return float(self.welfare_usd_per_s @ spans)


def yardstick(scenario: Scenario) -> Yardstick:
    """Measure a scenario. Raises EquilibriumUnsolved."""
    kinds, edges = Kinds.of(scenario), _edges(scenario)
    solved: dict[tuple[str, ...], WelfareOptimum] = {}
    before: WelfareOptimum | None = None
    rows = []
    for rates, there in _windows(scenario, kinds, edges):
        key = _key(rates, there)
        if key not in solved:
            solved[key] = before = welfare_optimum(kinds.market(rates, there), before)
        best = solved[key]
        away = there[kinds.kind_of] <= 0.0
        price, load = kinds.prices(best), kinds.loads(best, there)
        rows.append((best.welfare, np.where(away, np.nan, price), np.where(away, np.nan, load)))
    welfare, prices, loads = zip(*rows, strict=True)
    return Yardstick(edges, np.array(welfare), np.array(prices), np.array(loads))


def most_earned_usd(scenario: Scenario) -> float:
    """Return the most that could be earned after the cost of serving, from the end of the warm-up
    on, by one price at a time for each class of consumers. Raises EquilibriumUnsolved."""
    kinds, edges = Kinds.of(scenario), _edges(scenario)
    solved: dict[tuple[str, ...], float] = {}
    earned = []
    for rates, there in _windows(scenario, kinds, edges):
        key = _key(rates, there)
        if key not in solved:
            best = revenue_optimum(kinds.market(rates, there), kinds.class_of, PRICES)
            solved[key] = best.revenue
        earned.append(solved[key])
    return float(np.array(earned) @ np.diff(edges))


def _windows(
    scenario: Scenario, kinds: Kinds, edges: FloatArray
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Calls per second by class, and servers by kind, of each window."""
    for begin, end in pairwise(edges):
        calls = [calls_between(each.arrivals, begin, end) for each in scenario.classes]
        yield np.array(calls) / (end - begin), kinds.there((begin + end) / 2.0)


def _key(rates: FloatArray, there: FloatArray) -> tuple[str, ...]:
    """Of windows that are alike to six digits, one is solved."""
    return tuple(f"{each:.6g}" for each in (*rates, *there))


def _edges(scenario: Scenario) -> FloatArray:
    """Windows of one length, and cut where servers change or the rate of a class jumps.

    None is shorter than a call may take, where it is not cut: then no call could be served in a
    better one.
    """
    begin, end = scenario.warm_up_s, scenario.horizon_s
    moments = [moment for _, each in scenario.endpoints for moment in breaks_s(each)]
    for each in scenario.classes:
        moments += getattr(each.arrivals, "from_s", ())
    inner = [moment for moment in moments if begin < moment < end]
    longest_s = max(each.deadline_s for each in scenario.classes)
    count = int(np.clip((end - begin) / longest_s, 1, WINDOWS_MAX))
    return np.unique(np.concatenate((np.linspace(begin, end, count + 1), inner)))
