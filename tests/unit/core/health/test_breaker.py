"""The states of a breaker: closed, open, half-open, and how it goes from one to the other."""

from __future__ import annotations

import pytest

from broker.core.health.breaker import (
    CONSECUTIVE,
    EJECTION_S,
    EJECTION_S_MAX,
    PROBE_S_MAX,
    SAMPLES_MIN,
    WINDOW_S,
    Breaker,
)


def opened(now_s: float = 0.0) -> Breaker:
    breaker = Breaker(window_started_s=now_s)
    for _ in range(CONSECUTIVE):
        breaker.fail(now_s)
    return breaker


def alternating(breaker: Breaker, calls: int, now_s: float = 0.0) -> None:
    for number in range(calls):
        breaker.succeed(now_s) if number % 2 else breaker.fail(now_s)


class TestClosed:
    def test_it_admits(self) -> None:
        assert Breaker().admits(0.0)

    def test_failures_in_a_row_open_it(self) -> None:
        breaker = Breaker()
        for _ in range(CONSECUTIVE - 1):
            breaker.fail(0.0)
        assert breaker.admits(0.0)
        breaker.fail(0.0)
        assert not breaker.admits(0.0)

    def test_a_success_between_breaks_the_row(self) -> None:
        breaker = Breaker()
        for outcome in ("fail", "fail", "succeed", "fail", "fail"):
            getattr(breaker, outcome)(0.0)
        assert breaker.admits(0.0)

    def test_half_of_enough_calls_failing_opens_it(self) -> None:
        breaker = Breaker()
        alternating(breaker, SAMPLES_MIN - 1)
        assert breaker.admits(0.0)
        breaker.fail(0.0)
        assert not breaker.admits(0.0)

    def test_fewer_failures_than_half_do_not(self) -> None:
        breaker = Breaker()
        for _ in range(10):
            breaker.succeed(0.0)
            breaker.succeed(0.0)
            breaker.fail(0.0)
        assert breaker.admits(0.0)

    def test_the_window_before_counts_too(self) -> None:
        breaker = Breaker(window_started_s=100.0)
        alternating(breaker, SAMPLES_MIN - 2, 100.0)
        later_s = 100.0 + WINDOW_S
        breaker.fail(later_s)
        breaker.succeed(later_s)
        breaker.fail(later_s)
        assert not breaker.admits(later_s)

    @pytest.mark.parametrize(
        ("before", "since", "stays"),
        [
            ("fs" * 4, "ff", True),
            ("fs" * 4, "ssssff", True),
            ("fs" * 4, "sfsfsfsfsf", False),
        ],
    )
    def test_what_is_older_than_two_windows_is_forgotten(
        self, before: str, since: str, *, stays: bool
    ) -> None:
        breaker = Breaker()
        for now_s, outcomes in ((0.0, before), (2 * WINDOW_S, since)):
            for outcome in outcomes:
                breaker.fail(now_s) if outcome == "f" else breaker.succeed(now_s)
        assert breaker.admits(2 * WINDOW_S) is stays


class TestOpen:
    def test_it_admits_nobody_until_the_ejection_is_over(self) -> None:
        breaker = opened()
        assert not breaker.admits(EJECTION_S - 0.001)
        assert breaker.admits(EJECTION_S)

    def test_calls_that_were_under_way_do_not_lengthen_it(self) -> None:
        breaker = opened()
        breaker.fail(EJECTION_S / 2)
        assert breaker.admits(EJECTION_S)


class TestHalfOpen:
    def test_only_one_probe_goes_at_a_time(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        assert not breaker.admits(EJECTION_S)

    def test_a_probe_that_says_nothing_holds_up_the_next_for_a_while_only(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        assert not breaker.admits(EJECTION_S + PROBE_S_MAX)
        assert breaker.admits(EJECTION_S + PROBE_S_MAX + 0.001)

    def test_a_probe_whose_caller_left_makes_room_for_another(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        breaker.forget()
        assert breaker.admits(EJECTION_S)

    def test_a_probe_that_succeeds_closes_it(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        breaker.succeed(EJECTION_S)
        assert breaker.admits(EJECTION_S)
        breaker.fail(EJECTION_S)
        assert breaker.admits(EJECTION_S), "one failure after it has closed is no reason to open"

    def test_what_failed_before_it_has_closed_is_forgotten(self) -> None:
        breaker = Breaker()
        alternating(breaker, SAMPLES_MIN)
        breaker.fail(0.0)
        assert not breaker.admits(0.0)
        breaker.begin(EJECTION_S)
        breaker.succeed(EJECTION_S)
        breaker.fail(EJECTION_S)
        assert breaker.admits(EJECTION_S)

    def test_the_ejection_for_a_probe_that_fails_counts_from_when_it_began(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        breaker.fail(EJECTION_S + 1.5, EJECTION_S)
        assert breaker.open_until_s == EJECTION_S + 2 * EJECTION_S

    def test_a_probe_that_fails_ejects_for_twice_as_long_up_to_a_maximum(self) -> None:
        breaker, now_s, lengths = opened(), 0.0, []
        for _ in range(6):
            now_s = breaker.open_until_s
            breaker.begin(now_s)
            breaker.fail(now_s)
            lengths.append(breaker.open_until_s - now_s)
        assert lengths == pytest.approx([2.0, 4.0, 4.0, 4.0, 4.0, 4.0])
        assert lengths[-1] == pytest.approx(EJECTION_S_MAX)

    def test_after_it_has_closed_the_next_ejection_is_short_again(self) -> None:
        breaker = opened()
        for _ in range(3):
            breaker.fail(breaker.open_until_s)
        breaker.succeed(breaker.open_until_s)
        now_s = breaker.open_until_s
        for _ in range(CONSECUTIVE):
            breaker.fail(now_s)
        assert breaker.open_until_s - now_s == pytest.approx(EJECTION_S)

    def test_a_call_from_before_the_ejection_makes_no_room_for_a_second_probe(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        breaker.forget(0.0)
        assert not breaker.admits(EJECTION_S)
        breaker.fail(EJECTION_S, 0.0)
        assert breaker.ejection_s == EJECTION_S, "only a failed probe lengthens it"
        assert not breaker.admits(EJECTION_S)
        breaker.forget(EJECTION_S)
        assert breaker.admits(EJECTION_S)

    def test_a_call_that_goes_there_beside_the_probe_is_not_taken_for_it(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        breaker.begin(EJECTION_S + 0.1)
        breaker.forget(EJECTION_S + 0.1)
        assert not breaker.admits(EJECTION_S + 0.1)

    def test_a_probe_whose_answer_has_begun_closes_it(self) -> None:
        breaker = opened()
        assert not breaker.prove(EJECTION_S, 0.0), "a call from before says nothing of now"
        breaker.begin(EJECTION_S)
        assert breaker.prove(EJECTION_S + 0.1, EJECTION_S)
        assert breaker.admits(EJECTION_S + 0.1)

    def test_a_probe_that_fails_after_its_answer_has_begun_ejects_for_twice_as_long(self) -> None:
        breaker = opened()
        breaker.begin(EJECTION_S)
        breaker.prove(2.0, EJECTION_S)
        breaker.fail(2.5, 2.2)
        assert breaker.admits(2.5), "another call that fails is no probe"
        breaker.fail(3.0, EJECTION_S)
        assert breaker.open_until_s == 3.0 + 2 * EJECTION_S

    def test_one_that_fails_so_again_and_again_is_not_ejected_for_ever_longer(self) -> None:
        breaker = opened()
        for _ in range(4):
            began_s = breaker.open_until_s
            breaker.begin(began_s)
            breaker.prove(began_s, began_s)
            breaker.fail(began_s, began_s)
        assert breaker.open_until_s - began_s == EJECTION_S_MAX
