"""What a process knows of the moment: counts, averages, and who is ejected."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from broker.core.dispatch import Dispatch
from broker.core.health.breaker import EJECTION_S, Breaker
from broker.core.health.grouped import LATENCY_MS_MIN
from broker.core.health.journal import JOURNAL_MAX
from broker.core.health.measured import Measured, MeasuredMany
from broker.core.health.pulse import TTFT_MS_PRIOR, Pulse
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.retries import RetryBudget
from tests.fakes import decide, endpoint, market, plan, planned, pulse

FAILED = Outcome(Fault.RESET)


def made() -> Pulse:
    live = Pulse()
    live.fit(2, 2)
    return live


def call(live: Pulse, number: int, outcome: Outcome, now_s: float = 0.0) -> None:
    live.begin(number, number, now_s)
    live.end(number, number, outcome, now_s, None)


def test_calls_of_all_processes_load_a_deployment() -> None:
    live = made()
    live.begin(0, 0, 0.0)
    live.take_others(np.array([3, 1]), frozenset())
    assert live.load(np.array([0, 1])).tolist() == [4, 1]
    assert [live.load_of(0), live.load_of(1)] == [4, 1]


def test_every_end_has_its_begin() -> None:
    live = made()
    call(live, 0, DELIVERED)
    with pytest.raises(AssertionError):
        live.end(0, 0, DELIVERED, 0.0, None)


def test_what_others_have_under_way_is_what_was_last_heard() -> None:
    live = made()
    live.take_others(np.array([3, 1]), frozenset())
    live.take_others(np.array([2]), frozenset())
    assert live.load(np.array([0, 1])).tolist() == [2, 0]


def test_an_attempt_that_waits_for_its_hold_takes_its_place_until_it_starts() -> None:
    live = made()
    live.expect(1, 1)
    assert (live.load_of(1), live.load_of(0)) == (1, 0)
    live.expect(1, -1)
    assert live.load_of(1) == 0


def test_of_endpoints_on_one_deployment_each_has_its_own_calls_under_way() -> None:
    live = made()
    for number in (0, 1, 1):
        live.begin(number, 0, 0.0)
    assert live.under_way[:2].tolist() == [1, 2]
    live.end(1, 0, DELIVERED, 0.0, None)
    assert live.under_way[:2].tolist() == [1, 1]
    assert live.asked[:2].tolist() == [1, 2], "so often so far"
    assert live.load_of(0) == 2


def test_growing_keeps_what_is_known_and_fills_up_with_what_is_expected() -> None:
    live = made()
    live.begin(1, 1, 0.0)
    live.availability[1] = 0.25
    live.fit(5, 5)
    assert live.in_flight[:5].tolist() == [0, 1, 0, 0, 0]
    assert live.availability[:5].tolist() == [1.0, 0.25, 1.0, 1.0, 1.0]
    assert live.ttft_ms[4] == TTFT_MS_PRIOR


def test_availability_falls_with_failures_and_recovers_with_successes() -> None:
    live = made()
    call(live, 0, FAILED)
    fallen = live.availability[0]
    assert fallen < 1.0
    call(live, 0, DELIVERED)
    assert fallen < live.availability[0] < 1.0


def test_what_was_missed_counts_half_as_much_every_five_seconds_until_it_is_forgotten() -> None:
    live = made()
    call(live, 0, FAILED, 100.0)
    assert live.availability[0] == pytest.approx(0.9)
    for now_s, missed in ((102.0, 0.1 * 0.5**0.4), (105.0, 0.05), (115.0, 0.0125)):
        live.recover(now_s)
        assert live.availability[:2].tolist() == pytest.approx([1.0 - missed, 1.0])
    live.recover(130.0)
    assert live.availability[0] == 1.0
    call(live, 0, FAILED, 200.0)
    live.recover(205.0)
    assert live.availability[0] == pytest.approx(0.95), "from then on"


def test_however_much_happens_the_journal_of_it_has_an_end() -> None:
    live = made()
    for moment in range(50):
        for _ in range(JOURNAL_MAX // 10):
            live.expect(0, 1)
            live.expect(0, -1)
        live.recover(float(moment))
        assert len(live.journal.moved) <= JOURNAL_MAX
    assert live.journal.era > 0


@pytest.mark.parametrize(
    "fault",
    [Fault.CALLER_FAULT, Fault.CALLER_LEFT, Fault.DEADLINE, Fault.ADDRESS_REFUSED],
)
def test_what_is_not_the_providers_fault_is_no_mark_against_it(fault: Fault) -> None:
    live = made()
    for _ in range(20):
        call(live, 0, Outcome(fault))
    assert live.availability[0] == 1.0
    assert not live.doubts.ejected_here(0.0)


def test_what_was_measured_moves_the_averages() -> None:
    live = made()
    live.begin(0, 0, 0.0)
    live.end(0, 0, DELIVERED, 0.0, Measured(100.0, 1_100.0, 101, 3.0, 5.0))
    assert live.service_s[0] == pytest.approx(0.8 * 1.0 + 0.2 * 1.1)
    assert live.bytes_in_per_token[0] == pytest.approx(0.8 * 4 + 0.2 * 3)
    assert live.bytes_out_per_token[0] == pytest.approx(0.8 * 4 + 0.2 * 5)
    live.begin(0, 0, 0.0)
    live.end(0, 0, DELIVERED, 0.0, Measured(100.0, 1_100.0, 101, 3.0, 5.0))
    assert live.bytes_in_per_token[0] == pytest.approx(0.64 * 4 + 0.36 * 3)
    assert live.bytes_out_per_token[0] == pytest.approx(0.64 * 4 + 0.36 * 5)


def test_the_first_call_says_how_fast_an_endpoint_is_and_later_ones_move_the_average() -> None:
    live = made()
    for ttft_ms in (100.0, 200.0):
        live.begin(0, 0, 0.0)
        live.end(0, 0, DELIVERED, 0.0, Measured(ttft_ms, ttft_ms + 1_000.0, 101))
    assert live.ttft_ms[0] == pytest.approx(0.8 * 100 + 0.2 * 200)
    assert live.tpot_ms[0] == pytest.approx(10.0)


def test_an_answer_that_came_at_once_takes_no_time_by_the_token_and_never_less() -> None:
    """Clocks of two measurements may differ."""
    for came_ms in (100.0, 90.0):
        live = made()
        live.begin(0, 0, 0.0)
        live.end(0, 0, DELIVERED, 0.0, Measured(100.0, came_ms, 11))
        assert live.tpot_ms[0] == LATENCY_MS_MIN
        live.tpot_ms[0] = 10.0
        live.begin(0, 0, 0.0)
        live.end(0, 0, DELIVERED, 0.0, Measured(100.0, came_ms, 11))
        assert live.tpot_ms[0] == pytest.approx(8.0)


@pytest.mark.parametrize("seed", range(5))
def test_many_ends_are_heard_of_as_one_after_the_other(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 60))
    endpoints, deployments = rng.integers(0, 6, size), rng.integers(0, 4, size)
    ttft_ms = rng.choice([0.0, 5.0, 90.0, 400.0], size)
    seen = MeasuredMany(ttft_ms, ttft_ms + rng.uniform(0, 900, size), rng.integers(0, 4, size))
    one, many = Pulse(), Pulse()
    for live in (one, many):
        live.fit(6, 4)
        call(live, 0, FAILED)
        call(live, 1, DELIVERED)
        for number in range(3):
            call(live, 2, FAILED, number / 100)
        live.ttft_ms[3] = 70.0
    many.begin_many(deployments)
    many.end_many(endpoints, deployments, seen, 9.0)
    for endpoint_number, server, *told in zip(endpoints, deployments, *seen, strict=True):
        one.begin(int(endpoint_number), int(server), 9.0)
        measured = Measured(float(told[0]), float(told[1]), int(told[2]))
        one.end(int(endpoint_number), int(server), DELIVERED, 9.0, measured)
    for name in ("in_flight", "asked", "service_s", "ttft_ms", "tpot_ms", "availability"):
        np.testing.assert_allclose(getattr(many, name), getattr(one, name), rtol=1e-12)
    assert many.doubts.breakers == one.doubts.breakers
    assert many.doubts.all() == one.doubts.all()
    assert many.doubts.ejected_here(9.0) == one.doubts.ejected_here(9.0)


def test_refusals_only_ever_rise_once_for_each_deployment_named() -> None:
    live = made()
    live.refuse(np.array([0, 0, 1]))
    live.refuse(np.array([1]))
    assert live.refused[:2].tolist() == [2, 2]


def test_one_probe_at_a_time_goes_to_an_endpoint_whose_ejection_is_over() -> None:
    live = made()
    for _ in range(3):
        call(live, 0, FAILED)
    assert live.doubts.ejected_here(0.0) == {0}
    assert live.doubts.ejected_here(EJECTION_S) == set()
    live.begin(0, 0, EJECTION_S)
    assert live.doubts.ejected_here(EJECTION_S) == {0}
    live.end(0, 0, DELIVERED, EJECTION_S, None)
    assert live.doubts.ejected(np.array([0, 1]), EJECTION_S) is None


def test_a_lone_provider_is_tried_while_it_is_ejected_and_comes_back_with_its_first_success() -> (
    None
):
    where = market([endpoint(0)])
    live = pulse(where)
    for number in range(50):
        assert planned(decide(where, live, now_s=number / 100)) == [0]
        call(live, 0, FAILED, number / 100)
    assert live.doubts.ejected_here(0.5) == {0}
    assert planned(decide(where, live, now_s=0.5)) == [0]
    call(live, 0, DELIVERED, 0.5)
    assert live.doubts.ejected_here(0.5) == set()


def test_of_many_calls_decided_while_one_probe_was_due_only_one_is_the_probe() -> None:
    live = made()
    for _ in range(3):
        call(live, 0, FAILED)
    assert live.doubts.ejected(np.array([0, 1]), EJECTION_S) is None, "a probe is due"
    went = []
    for _ in range(20):
        budget = RetryBudget(0.0)
        calls = Dispatch(plan(2), budget, deadline_s=9.0, attempts_max=4, random=Random(1))
        attempt = calls.next_attempt(EJECTION_S, live.doubts.admitting(EJECTION_S))
        assert attempt is not None
        went.append(attempt.candidate.number)
        live.begin(went[-1], went[-1], EJECTION_S)
    assert went == [0] + [1] * 19


def test_two_failures_do_not_put_an_endpoint_behind_its_equals_for_good() -> None:
    where = market([endpoint(0), endpoint(1)])
    live = pulse(where)
    call(live, 0, FAILED)
    call(live, 0, FAILED)
    behind = {planned(decide(where, live, seed=seed))[0] for seed in range(40)}
    assert behind == {1}
    for moment in range(1, 21):
        live.recover(float(moment))
    again = {planned(decide(where, live, seed=seed, now_s=20.0))[0] for seed in range(40)}
    assert again == {0, 1}


def test_an_endpoint_whose_ejection_is_over_gets_its_probe_among_its_equals() -> None:
    where = market([endpoint(0), endpoint(1)])
    live = pulse(where)
    for _ in range(20):
        call(live, 0, FAILED)
    firsts = [planned(decide(where, live, seed=seed, now_s=9.0))[0] for seed in range(40)]
    assert 0 in firsts


def test_when_an_ejection_ends_elsewhere_one_probe_goes_from_here_too() -> None:
    live, nobody = made(), np.zeros(0, dtype=np.int64)
    live.take_others(nobody, frozenset({0}))
    assert live.doubts.ejected(np.array([0, 1]), 9.0) is not None
    live.take_others(nobody, frozenset())
    assert live.doubts.ejected_here(9.0) == set(), "a probe is due"
    live.begin(0, 0, 9.0)
    assert live.doubts.ejected_here(9.0) == {0}
    assert live.doubts.to_tell(9.0) == set(), "or two processes would tell each other for ever"
    live.end(0, 0, DELIVERED, 9.0, None, 9.0)
    assert not live.doubts.has(0)


def test_an_endpoint_that_fails_the_probe_from_here_is_ejected_here_and_others_are_told() -> None:
    live, nobody = made(), np.zeros(0, dtype=np.int64)
    live.take_others(nobody, frozenset({0}))
    live.take_others(nobody, frozenset())
    live.begin(0, 0, 9.0)
    live.end(0, 0, FAILED, 9.0, None, 9.0)
    assert live.doubts.to_tell(9.0) == {0}


def test_an_endpoint_with_long_answers_is_back_when_one_begins() -> None:
    live = made()
    for _ in range(3):
        call(live, 0, FAILED)
    live.begin(0, 0, EJECTION_S)
    live.prove(0, EJECTION_S + 0.1, EJECTION_S)
    assert not live.doubts.has(0)
    assert live.doubts.ejected_here(EJECTION_S + 0.1) == set()


def test_a_call_begun_before_the_ejection_makes_no_room_for_a_second_probe() -> None:
    live = made()
    live.begin(0, 0, 0.5)
    for _ in range(3):
        call(live, 0, FAILED, 1.0)
    live.begin(0, 0, 2.5)
    live.end(0, 0, Outcome(Fault.CALLER_LEFT), 2.6, None, 0.5)
    assert live.doubts.ejected_here(2.6) == {0}, "the probe is still under way"


def test_what_another_has_served_is_a_mark_against_who_held_it_for_wrong() -> None:
    live = made()
    live.contradict(0, 1.0)
    assert live.availability[:2].tolist() == pytest.approx([0.9, 1.0])
    for _ in range(2):
        live.contradict(0, 1.0)
    assert live.doubts.ejected_here(1.0) == {0}


def test_an_endpoint_ejected_here_while_another_is_elsewhere_is_doubted_as_well() -> None:
    live = made()
    live.take_others(np.zeros(0, dtype=np.int64), frozenset({0}))
    live.suspect(1, 1.0)
    assert live.doubts.all() == {0, 1}
    admits = live.doubts.admitting(1.0)
    assert admits is not None
    assert [admits(0), admits(1)] == [False, False]
    ejected = live.doubts.ejected(np.array([0, 1]), 1.0)
    assert ejected is not None
    assert ejected.all()


def test_of_those_in_doubt_only_the_breakers_of_who_is_asked_for_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = Pulse()
    live.fit(3_000, 3_000)
    for number in range(2_000):
        live.suspect(number, 1.0)
    looks: list[Breaker] = []
    admits = Breaker.admits

    def counted(breaker: Breaker, now_s: float) -> bool:
        looks.append(breaker)
        return admits(breaker, now_s)

    monkeypatch.setattr(Breaker, "admits", counted)
    admitting = live.doubts.admitting(1.0)
    assert admitting is not None
    assert [admitting(7), admitting(2_500)] == [False, True]
    assert len(looks) == 1
    ejected = live.doubts.ejected(np.array([2_998, 8, 2_999]), 1.0)
    assert ejected is not None
    assert ejected.tolist() == [False, True, False]
    assert len(looks) == 2
    assert live.doubts.ejected(np.arange(2_000, 3_000), 1.0) is None, "none of very many"


def test_a_probe_whose_caller_leaves_makes_room_for_another() -> None:
    live = made()
    for _ in range(3):
        call(live, 0, FAILED)
    live.begin(0, 0, EJECTION_S)
    assert live.doubts.ejected_here(EJECTION_S) == {0}
    live.end(0, 0, Outcome(Fault.CALLER_LEFT), EJECTION_S + 0.1, None, EJECTION_S)
    assert live.doubts.ejected_here(EJECTION_S + 0.1) == set(), "a probe is due"
    assert live.doubts.has(0)


def test_an_answer_that_was_asked_for_before_the_ejection_proves_nothing() -> None:
    live = made()
    live.begin(0, 0, 0.5)
    for _ in range(3):
        call(live, 0, FAILED, 1.0)
    live.prove(0, 1.5, 0.5)
    assert live.doubts.has(0)
    assert live.doubts.ejected_here(1.5) == {0}
    live.prove(1, 1.5, 0.5)  # of whom nobody doubts
    assert not live.doubts.has(1)


def test_whoever_stands_against_an_endpoint_a_decision_is_wary() -> None:
    nobody = np.zeros(0, dtype=np.int64)

    def here(live: Pulse) -> None:
        live.suspect(0, 1.0)

    def elsewhere(live: Pulse) -> None:
        live.take_others(nobody, frozenset({0}))

    def limited(live: Pulse) -> None:
        live.set_limit(0, 3.0)

    for stands, doubted in ((here, {0}), (elsewhere, {0}), (limited, set())):
        live = made()
        assert not live.is_wary
        stands(live)
        assert live.is_wary
        assert live.doubts.all() == doubted
        assert [live.doubts.has(0), live.doubts.has(1)] == [bool(doubted), False]
        assert live.has_limits == (stands is limited)
        admits = live.doubts.admitting(1.0)
        assert (admits is None) == (stands is limited)
        if admits is not None:
            assert [admits(0), admits(1)] == [False, True]
            ejected = live.doubts.ejected(np.array([1, 0]), 1.0)
            assert ejected is not None
            assert ejected.tolist() == [False, True]
    live.set_limit(0, np.inf)
    assert not live.is_wary
