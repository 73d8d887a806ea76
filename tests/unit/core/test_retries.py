"""The retry budget: an outage makes no storm, a quiet broker can still fail over."""

from __future__ import annotations

import pytest

from broker.core.retries import FLOOR_PER_S, RESERVE_S, SHARE, RetryBudget


def test_a_quiet_broker_may_fail_over() -> None:
    assert RetryBudget(0.0).withdraw(0.0)


def test_a_storm_is_bounded_by_the_share_of_the_traffic_and_the_floor() -> None:
    budget, granted, calls = RetryBudget(0.0), 0, 20_000
    for number in range(calls):
        now_s = number / 1_000  # a thousand calls a second, each of which wants three failovers
        budget.deposit(now_s)
        granted += sum(budget.withdraw(now_s) for _ in range(3))
    seconds = calls / 1_000
    most = SHARE * calls + FLOOR_PER_S * (seconds + RESERVE_S)
    assert 0.8 * SHARE * calls < granted <= most


def test_what_is_spent_comes_back_at_the_floor() -> None:
    budget = RetryBudget(0.0)
    while budget.withdraw(0.0):
        pass
    assert not budget.withdraw(0.1)
    assert budget.left(1.1) == pytest.approx(FLOOR_PER_S * 1.1)
    assert sum(budget.withdraw(1.1) for _ in range(100)) == int(FLOOR_PER_S * 1.1)


def test_deposits_grow_old() -> None:
    budget = RetryBudget(0.0)
    for _ in range(1_000):
        budget.deposit(0.0)
    budget.deposit(RESERVE_S)
    assert budget.left(RESERVE_S) <= FLOOR_PER_S * RESERVE_S + SHARE


def test_half_of_what_was_put_in_is_there_after_half_of_its_time() -> None:
    budget = RetryBudget(0.0)
    for _ in range(1_000):
        budget.deposit(0.0)
    assert budget.withdraw(RESERVE_S / 2)
    assert budget.left(RESERVE_S / 2) == pytest.approx(FLOOR_PER_S * RESERVE_S + SHARE * 500 - 1)


def test_after_a_long_silence_as_many_may_fail_over_as_at_first() -> None:
    budget = RetryBudget(0.0)
    budget.deposit(0.0)
    assert budget.withdraw(1_000 * RESERVE_S)
    assert sum(budget.withdraw(1_000 * RESERVE_S) for _ in range(1_000)) == (
        FLOOR_PER_S * RESERVE_S - 1
    )


def test_a_clock_that_steps_back_is_no_income() -> None:
    budget = RetryBudget(100.0)
    before = budget.left(100.0)
    budget.deposit(0.0)
    assert budget.left(0.0) <= before + SHARE
