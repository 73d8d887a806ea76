"""The most that one price earns, next to what each single price would earn."""

from __future__ import annotations

import numpy as np

from simulations.files.load import load
from simulations.fluid.atoms import calls_between
from simulations.fluid.kinds import Kinds
from simulations.fluid.yardstick import most_earned_usd, yardstick


def test_no_single_price_earns_more_and_all_welfare_is_above() -> None:
    """`steady` has one class of consumers, one kind of server, and the same demand all the time."""
    scenario = load("steady").read().build([])
    kinds = Kinds.of(scenario)
    begin, end = scenario.warm_up_s, scenario.horizon_s
    calls = calls_between(scenario.classes[0].arrivals, begin, end)
    arcs = kinds.market(np.array([calls]) / (end - begin), kinds.there((begin + end) / 2.0))
    best = 0.0
    for price in np.unique(arcs.value):
        come = np.where(arcs.value >= price, arcs.wanted[arcs.arc_class], 0.0)
        fits = min(1.0, float(arcs.capacity[0]) / max(float(come @ arcs.work), 1e-12))
        best = max(best, fits * float(come @ (price - arcs.cost)) * (end - begin))
    earned = most_earned_usd(scenario)
    assert 0.98 * best <= earned <= yardstick(scenario).welfare_usd()
    assert earned <= 1.1 * best, "two prices in turn earn hardly more than the best one"
