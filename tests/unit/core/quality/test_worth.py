"""A choice is worth its quality less its cost; a budget is spent evenly, whatever prices do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.quality.frontier import measure, reached, replay_of, upper_hull
from broker.core.quality.spending import replay_budget
from broker.core.quality.worth import Pacer, choose, price_for

QUALITY = np.array([[0.9, 0.8, 0.3], [0.9, 0.9, 0.3]])
COSTS = np.array([[1.0, 0.1, 0.01], [1.0, 0.1, 0.01]])


def test_quality_alone_takes_the_best_and_of_equals_the_cheapest() -> None:
    assert choose(QUALITY, COSTS, 0.0).tolist() == [0, 1]
    assert choose(QUALITY, COSTS, 1.0).tolist() == [1, 1]
    assert choose(QUALITY, COSTS, 100.0).tolist() == [2, 2]


@given(st.integers(0, 1_000), st.floats(0.02, 0.9))
def test_the_price_of_money_keeps_to_the_budget(seed: int, budget: float) -> None:
    random = np.random.default_rng(seed)
    quality, costs = random.random((60, 4)), random.random((60, 4)) * [1.0, 0.3, 0.1, 0.01]
    low, high = price_for(quality.T, costs.T, budget)
    rows = np.arange(60)
    spent = costs[rows, choose(quality, costs, high)].mean()
    assert spent <= budget
    if low > 0:
        assert costs[rows, choose(quality, costs, low)].mean() > budget


@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (1.0, 5.0, 1.0)])
def test_a_budget_is_spent_evenly_and_better_than_a_fixed_mix(factors: tuple[float, ...]) -> None:
    random = np.random.default_rng(1)
    kinds = random.random(1_000) < 0.5
    expected = np.where(kinds[:, None], [0.95, 0.9, 0.4], [0.95, 0.5, 0.45])
    costs = np.tile([1e-2, 1e-3, 1e-4], (1_000, 1))
    scores = (random.random(expected.shape) < expected).astype(float)
    paid = costs * random.lognormal(0.0, 0.3, costs.shape)
    half = slice(0, 500), slice(500, 1_000)
    told = replay_budget(
        2e-3,
        (expected[half[0]], costs[half[0]]),
        (expected[half[1]], costs[half[1]]),
        (scores[half[1]], paid[half[1]]),
        (np.array(factors), None),
    )
    assert abs(told.spent_over_budget) < 0.02
    assert told.reward > told.best_fixed_mix - 0.01
    if factors == (1.0, 1.0, 1.0):
        assert told.reward > told.best_fixed_mix + 0.02


def test_the_first_call_is_paced_already() -> None:
    pacer = Pacer(budget_usd=0.2, calls=7)
    pacer.warm(np.tile([0.9, 0.8], (50, 1)), np.tile([1.0, 0.01], (50, 1)))
    assert pacer.choose(np.array([0.9, 0.8]), np.array([1.0, 0.01]), np.ones(2)) == 1


def test_the_hull_lies_above_all_points_and_never_falls() -> None:
    costs, gains = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.2, 0.25, 0.6, 0.5])
    assert [each.tolist() for each in upper_hull(costs, gains)] == [[1.0, 3.0], [0.2, 0.6]]
    assert reached(costs, gains, np.array([0.5, 2.0, 9.0])).tolist() == pytest.approx(
        [0.2, 0.4, 0.6]
    )


def test_measures_of_a_router_that_knows_all() -> None:
    scores = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    costs = np.tile([1.0, 0.1], (4, 1))
    choices = np.array([[0, 1, 1, 1], [1, 1, 1, 1]])
    told = measure(replay_of(choices, scores, costs, best=0, cheapest=1), np.arange(4))
    assert told.accuracy_max_quality == told.oracle_accuracy == told.best_single_accuracy == 0.75
    assert told.gap_to_oracle == 0.0
    assert told.cost_saved_at_best_single == pytest.approx(1.0 - 0.325)
    assert told.cheapest_accuracy == 0.5
    assert told.random_at_equal_cost == pytest.approx(0.5 + 0.25 * 0.25)
    assert told.apgr is not None
    assert told.apgr > 0.5
    assert told.cpt_50 is not None
    assert told.cpt_50 < 0.2


def test_who_always_takes_the_best_single_reaches_it_however_sums_are_rounded() -> None:
    random = np.random.default_rng(3)
    for count in range(60, 90):
        scores, costs = random.random((count, 2)), random.random((count, 2))
        always = replay_of(np.zeros((3, count), dtype=np.int64), scores, costs, 0, 0)
        told = measure(always, np.arange(count))
        assert told.cost_saved_at_best_single == 0.0, count
        assert (told.cpt_50, told.cpt_80) == (0.0, 0.0), "the cheapest is there already"
        assert told.apgr is None, "there is no way from the cheapest to itself"


@pytest.mark.parametrize(("budget", "possible"), [(1.6e-4, False), (5.1e-4, True)])
def test_a_budget_that_cannot_pay_the_cheapest_once_all_is_dearer_is_called_impossible(
    budget: float, possible: bool
) -> None:
    expected = np.tile([0.9, 0.4], (100, 1)), np.tile([1e-3, 1e-4], (100, 1))
    told = replay_budget(budget, expected, expected, expected, (np.array([5.0, 5.0]), "all"))
    assert (told.possible, told.least_usd) == (possible, pytest.approx(5e-4))


def test_a_single_models_own_cost_is_a_possible_budget() -> None:
    random = np.random.default_rng(5)
    cost = random.random((70, 1))
    alike = cost, cost
    told = replay_budget(float(cost.mean()), alike, alike, alike, (np.ones(1), None))
    assert told.possible
