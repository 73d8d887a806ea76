"""Numbers that theory is known by."""

from __future__ import annotations

import math

import pytest

from tests.simulation.theory.queues import (
    Thresholds,
    mendelson_free,
    mendelson_optimum,
    naor_thresholds,
    waiting_s,
)


def value(rate: float) -> float:
    return 10.0 * rate - 4.0 * rate * rate


def marginal(rate: float) -> float:
    return 10.0 - 8.0 * rate


def test_naor_callers_join_longer_queues_than_is_good_and_a_monopolist_lets_in_too_few() -> None:
    assert naor_thresholds(10.0, 0.8, 1.0, 1.0) == Thresholds(selfish=10, social=4, revenue=2)


@pytest.mark.parametrize("load", [0.3, 1.0, 1.7])
def test_naor_revenue_is_at_most_social_and_social_at_most_selfish(load: float) -> None:
    found = naor_thresholds(15.0, load, 1.0, 1.0)
    assert 1 <= found.revenue <= found.social <= found.selfish == 15


def test_naor_nobody_joins_for_a_reward_below_the_cost_of_the_service_itself() -> None:
    with pytest.raises(ValueError, match="reward"):
        naor_thresholds(0.5, 0.8, 1.0, 1.0)


def test_mendelson_the_toll_is_what_one_more_call_costs_the_others() -> None:
    best = mendelson_optimum(marginal, value, 1.0, 1.0)
    assert best.arrival_per_s == pytest.approx(0.570953, abs=1e-6)
    assert best.toll == pytest.approx(3.101631, abs=1e-6)
    assert best.welfare == pytest.approx(3.074834, abs=1e-6)


def test_mendelson_free_access_wastes_a_part_of_the_welfare() -> None:
    free = mendelson_free(marginal, value, 1.0, 1.0)
    assert (free.arrival_per_s, free.toll) == (pytest.approx(0.75), 0.0)
    assert free.welfare == pytest.approx(2.25)


def test_mendelson_where_no_call_is_worth_its_wait_none_comes() -> None:
    best = mendelson_optimum(lambda _: 0.5, lambda rate: 0.5 * rate, 1.0, 1.0)
    assert (best.arrival_per_s, best.toll, best.welfare) == (0.0, 0.0, 0.0)


def test_waiting_in_a_queue_with_one_server_and_with_several() -> None:
    assert waiting_s(0.5, 1.0, 1) == pytest.approx(1.0)  # rho / (mu - lambda)
    assert waiting_s(0.9, 1.0, 1) == pytest.approx(9.0)
    assert waiting_s(1.5, 1.0, 2) == pytest.approx(9.0 / 7.0)
    tail = 8.0**10 / math.factorial(10) * 10 / (10 - 8)
    delayed = tail / (sum(8.0**n / math.factorial(n) for n in range(10)) + tail)
    assert waiting_s(8.0, 1.0, 10) == pytest.approx(delayed / (10 - 8))
    assert waiting_s(2.0, 1.0, 2) == math.inf
    assert waiting_s(0.0, 1.0, 3) == 0.0
