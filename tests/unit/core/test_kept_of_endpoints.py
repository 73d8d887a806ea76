"""What a process keeps of an endpoint from its first call on, for as long as it runs, is little: in
a large market it grows by this for hours, until each endpoint has been called."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from broker.core.catalog import Endpoint
from broker.core.health.pulse import Measured, Pulse
from broker.core.health.recent import FORGET_AFTER_S
from broker.core.health.throttle import UNLIMITED, Throttle
from broker.core.hedging import Tails
from broker.core.outcome import Fault, Outcome
from broker.core.quality.lengths import AnswerLengths, Batch
from broker.core.quality.syllabus import DOMAINS_MAX
from broker.flows.market.targets import KEPT_MAX, Targets
from tests.fakes import endpoint

ENDPOINTS = 1_000
LISTED = [endpoint(number) for number in range(ENDPOINTS)]
MEASURED = Measured(80.0, 200.0, 20)

Call = Callable[[Endpoint], object]


def how_late() -> Call:
    kept = Tails()
    return lambda at: kept.tell(at.number, 20.0 + at.number, streamed=True)


def how_many_at_once() -> Call:
    pulse = Pulse()
    pulse.fit(ENDPOINTS, ENDPOINTS)
    kept = Throttle(pulse, 2.0)
    return lambda at: kept.tell(at, (900, 20), MEASURED, 7.0 + at.number)


def how_long_answers_are() -> Call:
    kept = AnswerLengths()
    return lambda at: kept.take([Batch("law", at.number, 1, 20 + at.number)])


def how_it_is_addressed() -> Call:
    kept = Targets()
    return lambda at: kept.of(at, b"/v1/chat/completions")


@pytest.mark.parametrize(
    ("of", "at_most"),
    [
        (how_late, 40),
        (how_many_at_once, 500),
        (how_long_answers_are, 12),
        (how_it_is_addressed, 450),  # up to 55 of them lie ready where tuples were freed before
    ],
)
def test_what_is_kept_of_an_endpoint_takes_so_many_bytes_at_most(of: Callable[[], Call], at_most):
    of()(LISTED[0])  # the first call of a process loads what it needs
    call = of()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for each in LISTED:
            call(each)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 8 < taken / ENDPOINTS < at_most


def test_what_was_called_again_and_again_takes_no_more():
    calls = [of() for of in (how_late, how_long_answers_are, how_it_is_addressed)]
    for each in LISTED:
        for call in calls:
            call(each)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for each in LISTED:
            for call in calls:
                call(each)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / ENDPOINTS < 8


def test_domains_that_callers_make_up_take_no_more_than_those_there_may_be():
    kept, names_max = AnswerLengths(), DOMAINS_MAX + 1
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for name in range(5 * names_max):
            kept.take([Batch("law", 1, 1, 50), Batch(f"made up {name}", ENDPOINTS, 1, 20)])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < names_max * ENDPOINTS
    assert kept.table({"law": 0}, ENDPOINTS)[0, 1] > 49.0, "who is told of again is kept"


def test_what_is_kept_of_those_that_nobody_calls_is_given_back_in_time():
    pulse, targets = Pulse(), Targets()
    pulse.fit(ENDPOINTS, ENDPOINTS)
    throttle = Throttle(pulse, 2.0)

    def pass_time(now_s: float) -> None:
        throttle.relax(now_s)
        targets.turn(now_s)

    def call(at: Endpoint, now_s: float) -> None:
        throttle.tell(at, (900, 20), MEASURED, now_s)
        targets.of(at, b"/v1/chat/completions")

    call(LISTED[0], 0.0)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for now_s in range(0, int(2 * FORGET_AFTER_S) + 2, 10):
            pass_time(float(now_s))
            call(LISTED[7], float(now_s))
            if not now_s:
                for each in LISTED:
                    call(each, 0.0)
                most = tracemalloc.get_traced_memory()[0] - before
        left = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert left < 0.15 * most
    known = targets.of(LISTED[7], b"/v1/chat/completions")
    pass_time(2 * FORGET_AFTER_S + 3)
    assert targets.of(LISTED[7], b"/v1/chat/completions") is known


def test_how_endpoints_are_addressed_is_kept_of_so_many_at_most():
    listed = [endpoint(number) for number in range(3 * KEPT_MAX)]
    targets, path = Targets(), b"/v1/chat/completions"
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for each in listed:
            targets.of(each, path)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < KEPT_MAX * 450
    assert targets.of(listed[-1], path) is targets.of(listed[-1], path)


def test_a_limit_rises_to_its_end_by_itself_however_long_nobody_calls():
    pulse, large = Pulse(), endpoint(deployment={"capacity": 500_000})
    pulse.fit(1, 1)
    throttle = Throttle(pulse, 2.0)
    throttle.relax(0.0)
    for _ in range(4):
        pulse.begin(0, 0, 0.0)
    throttle.failed(large, Outcome(Fault.OVERLOADED, status=429), None, 0.0)
    before, limits = 0.0, list[float]()
    for now_s in range(2, int(50 * FORGET_AFTER_S), 2):
        throttle.relax(float(now_s))
        limits.append(float(pulse.limit_at[0]))
        assert limits[-1] > before or limits[-1] == UNLIMITED, "forgotten, it would stay for good"
        before = limits[-1]
    assert limits[int(2 * FORGET_AFTER_S)] < UNLIMITED
    assert before == UNLIMITED


def test_lengths_of_a_domain_take_room_for_those_alone_who_answer_about_it():
    kept, domains = AnswerLengths(), [f"domain {at}" for at in range(DOMAINS_MAX)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(10_000):
            kept.take([Batch(domains[number // 50], number, 1, 20)])
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken < 1e6
