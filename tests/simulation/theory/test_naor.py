"""Naor 1969: who sees the queue joins it too long; a toll mends that, and a monopolist overdoes it.

R = 10, C = mu = 1, rho = 0.8: up to 10 in the system where each looks after itself, 4 where all are
best off, 2 where the toll earns most. The simulator's callers see the line and decide one by one.
"""

from __future__ import annotations

import math

import pytest

from simulations.demand import Foresight, Shape, Value
from tests.simulation.theory.queues import Thresholds, naor_thresholds
from tests.simulation.theory.single_queue import UNIT_USD, Found, callers, simulated

REWARD, ARRIVALS = 10.0, 0.8
TOLLS = {10: 0.0, 4: 5.5, 2: 7.9}
"""A toll at which just so many join: floor(R - toll)."""
TOLERANCE = 0.03
SEEDS = (1, 2)


def limited(most: int) -> tuple[float, float]:
    """Calls per second that join M/M/1/most, and the mean number in it."""
    weights = [ARRIVALS**each for each in range(most + 1)]
    total = math.fsum(weights)
    inside = math.fsum(number * weight for number, weight in enumerate(weights)) / total
    return ARRIVALS * (1.0 - weights[-1] / total), inside


@pytest.fixture(scope="module")
def found() -> dict[int, Found]:
    """By threshold; the mean over seeds."""
    # A hair above R, or the free price of a nano would keep out the last who is indifferent.
    value = Value(Shape.FIXED, (REWARD + 1e-3) * UNIT_USD, by_length=False)
    who = callers(ARRIVALS, value, Foresight.QUEUE)
    means = {}
    for most, toll in TOLLS.items():
        runs = [simulated(who, toll, 9_000.0, seed) for seed in SEEDS]
        columns = ([each.joined, each.welfare, each.revenue] for each in runs)
        means[most] = Found(*(sum(each) / len(runs) for each in zip(*columns, strict=True)))
    return means


@pytest.mark.parametrize("most", TOLLS)
def test_callers_who_see_the_line_make_the_queue_of_theory(
    found: dict[int, Found], most: int
) -> None:
    joined, inside = limited(most)
    assert found[most].joined == pytest.approx(joined, rel=TOLERANCE)
    assert found[most].welfare == pytest.approx(joined * REWARD - inside, rel=TOLERANCE)
    assert found[most].revenue == pytest.approx(joined * TOLLS[most], rel=TOLERANCE, abs=1e-5)


def test_the_toll_that_is_best_for_all_is_lower_than_the_one_that_earns_most(
    found: dict[int, Found],
) -> None:
    assert naor_thresholds(REWARD, ARRIVALS, 1.0, 1.0) == Thresholds(10, 4, 2)
    assert max(found, key=lambda most: found[most].welfare) == 4
    assert max(found, key=lambda most: found[most].revenue) == 2
