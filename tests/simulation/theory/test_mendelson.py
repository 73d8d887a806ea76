"""Mendelson 1985: who does not see the queue is kept from it by what the others' delay costs.

V'(rate) = 10 - 8 rate, v = mu = 1: 0.570953 calls a second at a toll of 3.101631 make a welfare of
3.074834; with free access 0.75 join and make 2.25. The simulator's callers have values spread
evenly from 0 to 10 units, 1.25 come each second, and they expect what calls took lately.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from simulations.demand import Foresight, Shape, Value
from tests.simulation.theory.single_queue import UNIT_USD, Found, callers, simulated

BEST, FREE = (0.570953, 3.101631, 3.074834), (0.75, 0.0, 2.25)
"""Calls per second, toll, welfare."""
TOLERANCE = 0.03
WELFARE_TOLERANCES = {BEST: 0.05, FREE: 0.1}
"""Three standard errors of so many seconds: a queue without a toll is three quarters full, and its
mean length settles slowly (Whitt, "Planning queueing simulations", Management Science 35, 1989)."""
SEEDS = (1, 2)


@lru_cache
def mean_at(toll: float) -> Found:
    value = Value(Shape.UNIFORM, 5.0 * UNIT_USD, by_length=False)
    who = callers(1.25, value, Foresight.DELAY)
    runs = [simulated(who, toll, 9_000.0, seed) for seed in SEEDS]
    columns = ([each.joined, each.welfare, each.revenue] for each in runs)
    return Found(*(sum(each) / len(runs) for each in zip(*columns, strict=True)))


@pytest.mark.parametrize("regime", [BEST, FREE], ids=["with the toll", "with free access"])
def test_callers_who_expect_the_usual_delay_make_the_queue_of_theory(
    regime: tuple[float, float, float],
) -> None:
    rate, toll, welfare = regime
    found = mean_at(toll)
    assert found.joined == pytest.approx(rate, rel=TOLERANCE)
    assert found.welfare == pytest.approx(welfare, rel=WELFARE_TOLERANCES[regime])
    assert found.revenue == pytest.approx(rate * toll, rel=TOLERANCE, abs=1e-5)


def test_the_toll_makes_more_than_free_access() -> None:
    assert mean_at(BEST[1]).welfare > 1.2 * mean_at(FREE[1]).welfare
