"""How soon a server that was slow has its calls again, and how few find out that it still is.

The clock is the test's own: these are the bounds of the mechanism, whatever the machine.
"""

from __future__ import annotations

import heapq
from collections import Counter
from random import Random
from typing import Any

import numpy as np
import pytest

from broker.core.candidates.view import RoutingLimits
from broker.core.dispatch import Dispatch
from broker.core.health.measured import Measured, MeasuredMany
from broker.core.health.pulse import Pulse
from broker.core.health.revisits import OFFERED_S, SHARE, Revisits
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.retries import RetryBudget
from broker.core.routing import route
from tests.fakes import decide as decided
from tests.fakes import endpoint, market, planned, pulse, requirements

APART_S = 0.02
HEARD_EVERY_S = 1.0
USUAL_S, SLOW_S = 0.2, 3.0
FROM_S = 20.0
RECOVERED_S = 5.0
FAIR_S = 10.0


class Street:
    """Equal servers at fifty calls a second, of which the first is slow for a while."""

    def __init__(self, size: int, until_s: float, *, streamed: bool = False) -> None:
        self.where = market(
            [endpoint(number, deployment={"capacity": 400}) for number in range(size)]
        )
        self.live: Pulse = pulse(self.where)
        self.began: list[tuple[float, int]] = []
        self._until_s, self._streamed = until_s, streamed
        self._random = Random(3)
        self._running: list[tuple[float, float, int, str]] = []

    def run(self, end_s: float) -> None:
        heard_s = 0.0
        for step in range(round(end_s / APART_S)):
            now_s = step * APART_S
            while self._running and self._running[0][0] <= now_s:
                self._happen(*heapq.heappop(self._running))
            if now_s >= heard_s:
                heard_s += HEARD_EVERY_S
                self.live.recover(now_s)
            self._ask(now_s)

    def _ask(self, now_s: float) -> None:
        chance = self._random, now_s
        decision = route(requirements(), self.where, self.live, RoutingLimits(), chance)
        assert decision is not None
        calls = Dispatch(
            decision.plan,
            RetryBudget(0.0),
            deadline_s=now_s + 99.0,
            attempts_max=2,
            random=self._random,
        )
        attempt = calls.next_attempt(now_s, self.live.doubts.admitting(now_s))
        assert attempt is not None
        number = attempt.candidate.number
        self.live.begin(number, number, now_s)
        self.began.append((now_s, number))
        slow = number == 0 and FROM_S <= now_s < self._until_s
        took_s = (SLOW_S if slow else USUAL_S) * self._random.uniform(0.7, 1.3)
        what = "first" if self._streamed else "end"
        heapq.heappush(self._running, (now_s + took_s, now_s, number, what))

    def _happen(self, now_s: float, began_s: float, number: int, what: str) -> None:
        took_ms = (now_s - began_s) * 1_000
        if what == "first":
            self.live.prove(number, now_s, began_s)
            heapq.heappush(self._running, (now_s + 2.0, began_s, number, f"{took_ms}"))
            return
        measured = Measured(took_ms, took_ms, 8)
        if self._streamed:
            measured = Measured(float(what), took_ms, 100)
        self.live.end(number, number, DELIVERED, now_s, measured, began_s)

    def share(self, from_s: float, to_s: float) -> float:
        """Of the calls that began then, how many went to the first server."""
        went = Counter(number for at_s, number in self.began if from_s <= at_s < to_s)
        return went[0] / went.total()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("size", [2, 10])
@pytest.mark.parametrize("lasts_s", [10.0, 11.3, 12.6])
def test_a_server_that_was_slow_is_asked_again_within_five_seconds_and_then_as_often_as_any(
    lasts_s: float, size: int, streamed: bool
) -> None:
    back_s = FROM_S + lasts_s
    street = Street(size, back_s, streamed=streamed)
    street.run(back_s + FAIR_S + 20.0)
    assert street.share(back_s, back_s + RECOVERED_S) > 0.0
    assert street.share(back_s + FAIR_S, back_s + FAIR_S + 20.0) > 0.6 / size


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("size", [2, 10])
def test_a_server_that_stays_slow_gets_one_call_in_a_hundred_at_most(
    size: int, streamed: bool
) -> None:
    street = Street(size, until_s=600.0, streamed=streamed)
    street.run(300.0)
    late = FROM_S + 5.0
    assert 0.0 < street.share(late, 300.0) <= SHARE
    assert street.share(250.0, 300.0) > 0.0, "it is asked however long it was slow"


def slowed(
    *, late: bool = False, usual_ms: float = 100.0, times: float = 20.0, rests: bool = True
) -> tuple[Any, Pulse]:
    """Servers of which the first has become slow, and been left alone for a look if it `rests`, but
    for a call that has not ended yet, if `late`."""
    where = market([endpoint(number) for number in range(3)])
    live = pulse(where)
    for at_s in range(3):
        for number in range(3):
            for _ in range(100):
                called(live, number, usual_ms, float(at_s))
        live.recover(float(at_s))
    if late:
        live.begin(0, 0, 0.2)
    for _ in range(20):
        called(live, 0, times * usual_ms, 3.0)
    live.recover(3.0)
    assert {planned(decided(where, live, seed=seed))[0] for seed in range(40)} == {1, 2}
    if rests:
        live.recover(4.0)
    return where, live


def called(live: Pulse, number: int, took_ms: float, now_s: float) -> None:
    live.begin(number, number, now_s)
    live.end(number, number, DELIVERED, now_s, Measured(took_ms, took_ms, 1), now_s)


def firsts(where: Any, live: Pulse, now_s: float) -> set[int]:
    return {planned(decided(where, live, seed=seed, now_s=now_s))[0] for seed in range(40)}


def test_who_was_slow_and_rests_counts_as_fast_as_usual_until_a_call_begins_there() -> None:
    where, live = slowed()
    assert firsts(where, live, 4.0) == {0, 1, 2}
    live.begin(0, 0, 4.0)
    assert firsts(where, live, 4.0) == {1, 2}
    assert not live.is_wary, "and whoever names it is served as ever"


@pytest.mark.parametrize(("took_ms", "again"), [(100.0, {0, 1, 2}), (2_000.0, {1, 2})])
def test_what_that_call_shows_counts_in_full(took_ms: float, again: set[int]) -> None:
    where, live = slowed()
    called(live, 0, took_ms, 4.0)
    assert live.ttft_ms[0] == took_ms
    assert firsts(where, live, 4.5) == again


def test_the_first_content_of_its_answer_shows_it_already() -> None:
    where, live = slowed()
    live.begin(0, 0, 4.0)
    live.prove(0, 5.9, 4.0)
    assert live.ttft_ms[0] == pytest.approx(1_900.0)
    assert firsts(where, live, 5.9) == {1, 2}


@pytest.mark.parametrize(("times", "rests_s"), [(1.4, 5), (1.6, 3), (1.9, 2)])
def test_who_was_a_little_slow_is_asked_again_after_a_longer_rest(
    times: float, rests_s: int
) -> None:
    where, live = slowed(usual_ms=4_000.0, times=times)
    for now_s in range(4, 3 + rests_s):
        live.recover(float(now_s))
        assert firsts(where, live, float(now_s)) == {1, 2}
    live.recover(3.0 + rests_s)
    assert firsts(where, live, 3.0 + rests_s) == {0, 1, 2}


def test_who_was_slow_is_asked_before_who_was_less_so_and_has_rested_longer() -> None:
    revisits, latency_ms = Revisits((1.0, 0.1)), np.full((2, 3), 100.0)
    half = round(0.5 / SHARE)
    revisits.look(latency_ms, np.array([1, 1, half]), frozenset(), 0.0)
    latency_ms[:, :2] = 150.0, 900.0
    revisits.look(latency_ms, np.array([1, 2, half]), frozenset(), 9.0)
    revisits.look(latency_ms, np.array([1, 2, 2 * half]), frozenset(), 10.0)
    assert revisits.offers.keys() == {1}, "so many calls allow for one"
    revisits.end(1)
    latency_ms[:, 1] = 100.0
    revisits.look(latency_ms, np.array([1, 2, 4 * half]), frozenset(), 11.0)
    assert revisits.offers.keys() == {0}


def test_whole_answers_that_usually_take_long_are_waited_for() -> None:
    where, live = slowed(usual_ms=12_000.0)
    live.begin(0, 0, 4.0)
    for now_s in range(5, 17):
        live.recover(float(now_s))
        assert firsts(where, live, float(now_s)) == {1, 2}, "until it has shown something"
    live.end(0, 0, DELIVERED, 16.5, Measured(12_500.0, 12_500.0, 1), 4.0)
    assert live.ttft_ms[0] == 12_500.0
    assert firsts(where, live, 17.0) == {0, 1, 2}


def test_who_says_nothing_for_twice_as_long_as_usual_is_waited_for_no_more() -> None:
    _, live = slowed(usual_ms=12_000.0)
    live.begin(0, 0, 4.0)
    live.recover(27.0)
    assert 0 in live.revisits.taken()
    live.recover(29.0)
    assert 0 not in live.revisits.taken()


def test_a_call_that_ends_without_an_answer_ends_the_wait() -> None:
    where, live = slowed(usual_ms=12_000.0)
    live.begin(0, 0, 4.0)
    live.end(0, 0, Outcome(fault=Fault.CALLER_LEFT), 5.0, None, 4.0)
    assert not live.revisits.offers
    assert firsts(where, live, 5.0) == {1, 2}


def test_an_offer_that_nobody_takes_is_withdrawn() -> None:
    where, live = slowed()
    live.recover(4.0 + OFFERED_S - 1.0)
    assert firsts(where, live, 8.0) == {0, 1, 2}
    live.recover(4.0 + OFFERED_S)
    assert live.ttft_ms[0] > 1_900.0
    assert firsts(where, live, 9.0) == {1, 2}


def test_an_offer_that_nobody_takes_leaves_its_call_to_the_next() -> None:
    revisits, asked = Revisits((1.0, 0.1)), np.array([1, 1, round(1 / SHARE)])
    revisits.look(np.full((2, 3), 100.0), asked, frozenset(), 0.0)
    slow_ms = np.array([[2_000.0, 2_000.0, 100.0]] * 2)
    revisits.look(slow_ms, asked, frozenset(), 1.0)
    assert revisits.offers.keys() == {0}, "so many calls allow for one"
    revisits.look(slow_ms, asked, frozenset(), 1.0 + OFFERED_S)
    assert revisits.offers.keys() == {1}, (
        "nobody may ever go to the first: it may be listed no more"
    )


def test_an_answer_that_began_before_does_not_spoil_an_offer() -> None:
    where, live = slowed(late=True)
    live.end(0, 0, DELIVERED, 4.1, Measured(3_900.0, 3_900.0, 1), 0.2)
    assert firsts(where, live, 4.1) == {0, 1, 2}


def test_many_calls_at_once_find_out_as_one_does() -> None:
    where, live = slowed()
    numbers = np.zeros(3, dtype=np.int64)
    live.begin_many(numbers)
    live.take_offers(numbers, 4.0)
    assert firsts(where, live, 4.0) == {1, 2}
    seen = MeasuredMany(np.full(3, 90.0), np.full(3, 90.0), np.ones(3, dtype=np.int64))
    live.end_many(numbers, numbers, seen, 4.1)
    assert live.ttft_ms[0] == pytest.approx(90.0)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_who_was_slow_before_it_failed_is_probed_once_its_ejection_is_over(elsewhere: bool) -> None:
    where, live = slowed(rests=False)
    ejected(live, 4.0, elsewhere=elsewhere)
    live.recover(4.5)
    assert firsts(where, live, 4.5) == {1, 2}
    if elsewhere:
        live.take_others(np.zeros(3, dtype=np.int64), frozenset())
    live.recover(5.5)
    assert firsts(where, live, 5.5) == {0, 1, 2}
    live.begin(0, 0, 5.5)
    assert firsts(where, live, 5.5) == {1, 2}, "one probe at a time"
    live.recover(6.5)
    assert firsts(where, live, 6.5) == {1, 2}
    live.end(0, 0, DELIVERED, 6.6, Measured(100.0, 100.0, 1), 5.5)
    assert firsts(where, live, 6.6) == {0, 1, 2}
    assert not live.is_wary


def test_who_fails_its_probe_waits_for_as_long_as_its_breaker_says() -> None:
    where, live = slowed(rests=False)
    ejected(live, 4.0)
    live.recover(5.5)
    live.begin(0, 0, 5.5)
    live.end(0, 0, Outcome(fault=Fault.RESET), 5.6, None, 5.5)
    for now_s in (6.5, 7.4):
        live.recover(now_s)
        assert firsts(where, live, now_s) == {1, 2}
    live.recover(8.5)
    assert firsts(where, live, 8.5) == {0, 1, 2}


def ejected(live: Pulse, now_s: float, *, elsewhere: bool = False) -> None:
    """Let the first fail so often that it is ejected, here or as another process has seen."""
    if elsewhere:
        live.take_others(np.zeros(3, dtype=np.int64), frozenset({0}))
        return
    for _ in range(3):
        live.begin(0, 0, now_s)
        live.end(0, 0, Outcome(fault=Fault.RESET), now_s, None, now_s)


def test_who_is_as_slow_as_ever_is_not_offered() -> None:
    where = market([endpoint(number) for number in range(2)])
    live = pulse(where)
    for at_s in range(10):
        for _ in range(100):
            called(live, 1, 100.0, float(at_s))
        if at_s < 5:
            called(live, 0, 2_000.0, float(at_s))
        live.recover(float(at_s))
    assert live.ttft_ms[0] == pytest.approx(2_000.0)
    assert not live.revisits.offers
