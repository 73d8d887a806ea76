"""The attempts of one call: who is tried, in which order, after which wait, and when it ends."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from broker.core.dispatch import BACKOFF_S, RETRY_AFTER_S_MAX, Dispatch, End
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.retries import RetryBudget
from tests.fakes import plan

FAULTS_THAT_FAIL_OVER = [each for each in Fault if Outcome(each).fails_over]
REPEATABLE = [
    Fault.CONNECT_FAILED,
    Fault.CONNECT_TIMEOUT,
    Fault.RESET,
    Fault.OVERLOADED,
    Fault.SERVER_ERROR,
]


def dispatch(candidates: int, **changes: Any) -> Dispatch:
    told = {"deadline_s": 100.0, "attempts_max": 4, "random": Random(1)} | changes
    budget = told.pop("budget", None) or RetryBudget(0.0)
    return Dispatch(plan(candidates), budget, **told)


def tried(calls: Dispatch) -> list[int]:
    return [each.candidate.number for each in calls.attempts]


def run(calls: Dispatch, *faults: Fault | None, now_s: float = 0.0) -> None:
    """Drive it through these outcomes; the clock moves only as the waits do."""
    for fault in faults:
        attempt = calls.next_attempt(now_s)
        assert attempt is not None
        now_s = attempt.started_s
        calls.record(Outcome(fault), now_s)
    if calls.end is None:
        assert calls.next_attempt(now_s) is None


@pytest.mark.parametrize("fault", FAULTS_THAT_FAIL_OVER)
def test_a_fault_of_the_provider_goes_to_the_next_candidate_without_a_wait(fault: Fault) -> None:
    calls = dispatch(3)
    run(calls, fault, fault, None)
    assert tried(calls) == [0, 1, 2]
    assert [each.delay_s for each in calls.attempts] == [0.0, 0.0, 0.0]
    assert calls.end is End.DELIVERED


@pytest.mark.parametrize("fault", [Fault.CALLER_FAULT, Fault.CALLER_LEFT])
def test_what_is_not_the_providers_fault_ends_the_call(fault: Fault) -> None:
    calls = dispatch(3)
    run(calls, fault)
    assert calls.end is End.FINAL
    assert calls.next_attempt(0.0) is None


def test_a_success_ends_the_call() -> None:
    calls = dispatch(3)
    run(calls, None)
    assert calls.end is End.DELIVERED
    assert calls.next_attempt(0.0) is None


def test_a_failure_after_content_went_out_ends_the_call() -> None:
    calls = dispatch(3)
    attempt = calls.next_attempt(0.0)
    assert attempt is not None
    attempt.first_content_s = 0.1
    calls.record(Outcome(Fault.RESET), 0.2)
    assert calls.end is End.COMMITTED
    assert calls.next_attempt(0.2) is None


def test_a_call_that_comes_after_its_deadline_makes_no_attempt() -> None:
    calls = dispatch(2, deadline_s=1.0)
    assert calls.next_attempt(1.0) is None
    assert calls.end is End.DEADLINE


def test_no_attempt_begins_after_the_deadline() -> None:
    calls = dispatch(2, deadline_s=1.0)
    calls.next_attempt(0.0)
    calls.record(Outcome(Fault.RESET), 1.0)
    assert calls.next_attempt(1.0) is None
    assert calls.end is End.DEADLINE


def test_an_attempt_that_the_deadline_cut_is_the_last() -> None:
    calls = dispatch(2)
    calls.next_attempt(0.0)
    calls.record(Outcome(Fault.DEADLINE), 0.5)
    assert calls.end is End.DEADLINE


def test_attempts_have_a_maximum() -> None:
    calls = dispatch(5, attempts_max=3)
    run(calls, *[Fault.RESET] * 3)
    assert tried(calls) == [0, 1, 2]
    assert calls.end is End.EXHAUSTED


def test_without_a_retry_budget_there_is_no_failover() -> None:
    budget = RetryBudget(0.0)
    while budget.withdraw(0.0):
        pass
    calls = dispatch(3, budget=budget)
    run(calls, Fault.RESET)
    assert tried(calls) == [0]
    assert calls.end is End.BUDGET_SPENT


def test_a_first_attempt_costs_the_budget_nothing() -> None:
    budget = RetryBudget(0.0)
    before = budget.left(0.0)
    run(dispatch(1, budget=budget), None)
    assert budget.left(0.0) > before


class TestAdmission:
    def test_who_was_ejected_since_the_decision_comes_last(self) -> None:
        calls = dispatch(3)
        attempt = calls.next_attempt(0.0, lambda number: number != 0)
        assert attempt is not None
        assert attempt.candidate.number == 1
        calls.record(Outcome(Fault.RESET), 0.0)
        attempt = calls.next_attempt(0.0, lambda number: number == 2)
        assert attempt is not None
        assert attempt.candidate.number == 2
        calls.record(Outcome(Fault.RESET), 0.0)
        run(calls, None)
        assert tried(calls) == [1, 2, 0]

    def test_where_nobody_is_admitted_the_order_stands(self) -> None:
        calls = dispatch(2)
        for number in (0, 1):
            attempt = calls.next_attempt(0.0, lambda _: False)
            assert attempt is not None
            assert attempt.candidate.number == number
            calls.record(Outcome(Fault.RESET), 0.0)

    def test_nobody_of_a_later_stage_comes_first_for_being_admitted(self) -> None:
        calls = staged(0, 0, 1)
        attempt = calls.next_attempt(0.0, lambda number: number == 2)
        assert attempt is not None
        assert attempt.candidate.number == 0


class TestRepeats:
    @pytest.mark.parametrize("fault", REPEATABLE)
    def test_a_lone_endpoint_is_tried_again_after_a_growing_wait(self, fault: Fault) -> None:
        calls = dispatch(1)
        run(calls, *[fault] * 4)
        assert tried(calls) == [0, 0, 0, 0]
        assert calls.end is End.EXHAUSTED
        first, *waits = [each.delay_s for each in calls.attempts]
        assert first == 0.0
        for number, wait in enumerate(waits):
            assert 0.5 <= wait / (BACKOFF_S * 2**number) < 1.5

    @pytest.mark.parametrize(
        "fault", [each for each in FAULTS_THAT_FAIL_OVER if each not in REPEATABLE]
    )
    def test_a_fault_that_would_show_again_is_not_repeated(self, fault: Fault) -> None:
        calls = dispatch(1)
        run(calls, fault)
        assert calls.end is End.EXHAUSTED

    def test_once_all_were_tried_the_best_that_may_have_recovered_is_repeated(self) -> None:
        calls = dispatch(3)
        run(calls, Fault.CREDENTIAL, Fault.OVERLOADED, Fault.MALFORMED, None)
        assert tried(calls) == [0, 1, 2, 1]

    def test_the_wait_that_a_provider_asks_for_is_kept(self) -> None:
        calls = dispatch(1)
        calls.next_attempt(0.0)
        calls.record(Outcome(Fault.OVERLOADED, retry_after_s=3.0), 1.0)
        attempt = calls.next_attempt(1.5)
        assert attempt is not None
        assert attempt.started_s == pytest.approx(4.0)

    def test_it_is_the_wait_of_the_endpoint_that_is_repeated(self) -> None:
        calls = dispatch(2)
        calls.next_attempt(0.0)
        calls.record(Outcome(Fault.OVERLOADED, retry_after_s=3.0), 0.0)
        calls.next_attempt(0.0)
        calls.record(Outcome(Fault.CREDENTIAL), 1.0)
        attempt = calls.next_attempt(1.0)
        assert attempt is not None
        assert attempt.candidate.number == 0
        assert attempt.started_s == pytest.approx(3.0)

    def test_no_provider_makes_a_call_wait_for_long(self) -> None:
        calls = dispatch(1)
        calls.next_attempt(0.0)
        calls.record(Outcome(Fault.OVERLOADED, retry_after_s=3_600.0), 0.0)
        attempt = calls.next_attempt(0.0)
        assert attempt is not None
        assert attempt.delay_s == RETRY_AFTER_S_MAX

    def test_a_wait_beyond_the_deadline_is_not_begun(self) -> None:
        calls = dispatch(1, deadline_s=2.0)
        calls.next_attempt(0.0)
        calls.record(Outcome(Fault.OVERLOADED, retry_after_s=3.0), 0.0)
        assert calls.next_attempt(0.0) is None
        assert calls.end is End.DEADLINE


class TestMisuse:
    def test_the_next_attempt_waits_for_the_last_to_be_recorded(self) -> None:
        calls = dispatch(2)
        calls.next_attempt(0.0)
        with pytest.raises(AssertionError):
            calls.next_attempt(0.0)

    def test_an_attempt_ends_once(self) -> None:
        calls = dispatch(2)
        calls.next_attempt(0.0)
        calls.record(DELIVERED, 0.0)
        with pytest.raises(AssertionError):
            calls.record(DELIVERED, 0.0)

    def test_a_plan_has_a_candidate(self) -> None:
        with pytest.raises(AssertionError):
            dispatch(0)


def test_one_call_is_one_mark_against_an_endpoint_however_often_it_is_repeated_there() -> None:
    calls = dispatch(1)
    run(calls, Fault.SERVER_ERROR, Fault.SERVER_ERROR, Fault.RESET, Fault.SERVER_ERROR)
    marks = [each.outcome.counts_against_provider for each in calls.attempts if each.outcome]
    assert marks == [True, False, False, False]


def test_each_endpoint_of_a_call_that_fails_gets_its_own_mark() -> None:
    calls = dispatch(2)
    run(calls, *[Fault.SERVER_ERROR] * 4)
    marks = [each.outcome.counts_against_provider for each in calls.attempts if each.outcome]
    assert marks == [True, True, False, False]


def staged(*stages: int, **changes: Any) -> Dispatch:
    return dispatch(len(stages), stages=stages, **changes)


def test_a_stage_that_fails_goes_to_its_next_endpoint_before_the_next_stage() -> None:
    calls = staged(0, 0, 1)
    run(calls, Fault.RESET, None)
    assert tried(calls) == [0, 1]
    assert calls.go_on()
    run(calls, None)
    assert tried(calls) == [0, 1, 2]
    assert not calls.go_on(), "there is nobody else"


def test_an_answer_that_is_not_enough_skips_what_is_left_of_its_stage_and_costs_no_retry() -> None:
    budget = RetryBudget(0.0)
    calls = staged(0, 0, 1, 1, attempts_max=1, budget=budget)
    run(calls, None)
    before = budget.left(0.0)
    assert calls.go_on()
    run(calls, None)
    assert tried(calls) == [0, 2]
    assert budget.left(0.0) == before


def test_who_failed_in_an_earlier_stage_is_not_asked_again() -> None:
    calls = staged(0, 0, 1)
    run(calls, Fault.OVERLOADED, None)
    assert calls.go_on()
    run(calls, Fault.OVERLOADED, Fault.OVERLOADED, Fault.MALFORMED)
    assert tried(calls) == [0, 1, 2, 2, 2]
    assert calls.end is End.EXHAUSTED


def test_an_attempt_beside_an_answer_leaves_it_as_it_is() -> None:
    calls = staged(0, 1)
    run(calls, None)
    beside = calls.begin_beside(calls.attempts[0].candidate, 1.0)
    assert beside is not None
    calls.record(Outcome(Fault.SERVER_ERROR), 2.0)
    assert calls.end is End.DELIVERED
    assert calls.go_on()
    run(calls, None)
    assert tried(calls) == [0, 0, 1]
    assert calls.begin_beside(beside.candidate, 100.0) is None, "out of time"


def test_what_becomes_of_an_attempt_beside_an_answer_does_not_undo_the_answer() -> None:
    for fault in (Fault.CALLER_FAULT, Fault.DEADLINE):
        calls = dispatch(1)
        run(calls, None)
        calls.begin_beside(calls.attempts[0].candidate, 1.0)
        calls.record(Outcome(fault), 2.0)
        assert calls.end is End.DELIVERED


def test_a_call_without_stages_has_no_next_one() -> None:
    calls = dispatch(2)
    run(calls, None)
    assert not calls.go_on()


def test_content_that_is_held_back_commits_to_nothing() -> None:
    calls = staged(0, 0)
    first = calls.next_attempt(0.0)
    assert first is not None
    first.first_content_s, first.held_back = 0.5, True
    calls.record(Outcome(Fault.RESET), 1.0)
    assert calls.end is None
