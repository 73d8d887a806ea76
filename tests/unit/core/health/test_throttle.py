"""The limits of servers, as processes and endpoints share them."""

from __future__ import annotations

import heapq
from random import Random
from typing import cast

import numpy as np
import pytest

from broker.core.catalog import Endpoint
from broker.core.health.gradient import REFUSED_FACTOR, kind_of, kinds_of
from broker.core.health.measured import Measured
from broker.core.health.pulse import Pulse
from broker.core.health.throttle import APART_S, Cut, Throttle, ToldMany
from broker.core.outcome import Fault, Outcome

DELIVERED = Outcome(status=200)
REFUSED = Outcome(Fault.OVERLOADED, status=429)
SLOTS = 16
WAIT_S = 0.04


class Server:
    """As much of a deployment as a throttle looks at."""

    def __init__(self, number: int, capacity: int) -> None:
        self.number = number
        self.capacity = capacity


class At:
    """As much of an endpoint as a throttle looks at."""

    def __init__(self, number: int, deployment: Server) -> None:
        self.number = number
        self.deployment = deployment


def endpoint(number: int, server: Server) -> Endpoint:
    return cast(Endpoint, At(number, server))


class Process:
    """One broker process with callers who ask again at once; a full server refuses."""

    def __init__(self, callers: int) -> None:
        self.pulse = Pulse()
        self.pulse.fit(1, 1)
        self.throttle = Throttle(self.pulse, 2.0)
        self.callers = callers
        self.again_s = 0.0
        self.served = 0


def share(processes: list[Process], server: Endpoint, lasts_s: float) -> None:
    """Let the processes share one server that refuses what is beyond its slots."""
    random, now_s, running = Random(5), 0.0, list[tuple[float, float, int]]()
    told_s = relaxed_s = 0.0
    while now_s < lasts_s:
        if now_s >= told_s:
            told_s = now_s + WAIT_S
            counts = [each.pulse.in_flight_at[0] for each in processes]
            for n, each in enumerate(processes):
                each.pulse.take_others(np.array([sum(counts) - counts[n]]), frozenset())
        if now_s >= relaxed_s:
            relaxed_s = now_s + 1.0
            for each in processes:
                each.throttle.relax(now_s)
        for n, each in enumerate(processes):
            pulse = each.pulse
            while (
                now_s >= each.again_s
                and pulse.in_flight_at[0] < each.callers
                and pulse.load_of(0) < pulse.limit_at[0]
            ):
                pulse.begin(0, 0, now_s)
                if len(running) >= SLOTS:
                    each.throttle.failed(server, REFUSED, None, now_s)
                    pulse.end(0, 0, DELIVERED, now_s, None)
                    each.again_s = now_s + WAIT_S
                else:
                    end_s = now_s + 0.1 * random.uniform(0.8, 1.2)
                    heapq.heappush(running, (end_s, now_s, n))
        now_s = min(running[0][0], now_s + WAIT_S / 2) if running else now_s + WAIT_S / 2
        while running and running[0][0] <= now_s:
            end_s, began_s, n = heapq.heappop(running)
            took_ms = (end_s - began_s) * 1_000
            each = processes[n]
            each.throttle.tell(server, (400, 8), Measured(took_ms, took_ms, 8), now_s)
            each.pulse.end(0, 0, DELIVERED, now_s, None)
            each.served += 1


def test_processes_at_one_server_starve_nobody() -> None:
    processes = [Process(32), Process(32)]
    share(processes, endpoint(0, Server(0, 64)), 120.0)
    served = sorted(each.served for each in processes)
    assert served[0] >= 0.4 * served[1]
    assert sum(served) >= 0.8 * 120.0 * SLOTS / 0.1


def test_endpoints_of_one_server_share_its_limit() -> None:
    pulse, server = Pulse(), Server(0, 50)
    pulse.fit(2, 1)
    throttle = Throttle(pulse, 2.0)
    one, other = endpoint(0, server), endpoint(1, server)
    throttle.tell(other, (400, 8), Measured(1.0, 1.0, 8), 0.5)
    assert throttle.limited() == 0
    for _ in range(20):
        pulse.begin(0, 0, 1.0)
    throttle.failed(one, REFUSED, None, 1.0)
    assert pulse.limit_at[0] == pulse.limit_at[1] == REFUSED_FACTOR * 20
    assert throttle.limited() == 1


def test_of_a_stream_it_does_not_count_how_long_its_caller_takes_to_read() -> None:
    pulse, server = Pulse(), Server(0, 50)
    pulse.fit(1, 1)
    throttle, at = Throttle(pulse, 2.0), endpoint(0, Server(0, 50))
    for _ in range(40):
        pulse.begin(0, 0, 0.0)
    for step in range(1_000):
        slow = Measured(50.0, 100.0 if step < 100 else 60_000.0, 64)
        throttle.tell(at, (400, 64), slow, step / 20, streamed=True)
    assert pulse.limit_at[0] == np.inf
    assert server.capacity == 50


def test_of_a_server_far_from_full_not_every_call_is_learned_from() -> None:
    pulse = Pulse()
    pulse.fit(1, 1)
    throttle, at = Throttle(pulse, 2.0), endpoint(0, Server(0, 50))
    fast = Measured(5.0, 5.0, 8)
    pulse.begin(0, 0, 0.0)
    assert throttle.tell(at, (400, 8), fast, 1.0)
    assert not throttle.tell(at, (400, 8), fast, 1.0 + APART_S / 2)
    assert throttle.tell(at, (400, 8), fast, 1.0 + APART_S)
    for _ in range(12):
        pulse.begin(0, 0, 2.0)
    assert throttle.tell(at, (400, 8), fast, 1.0 + APART_S), "it is a quarter full"
    throttle.failed(at, REFUSED, None, 3.0)
    for _ in range(12):
        pulse.end(0, 0, DELIVERED, 3.0, None)
    assert throttle.tell(at, (400, 8), fast, 1.0 + APART_S), "it is limited"


def test_a_call_that_was_given_up_is_compared_with_those_that_it_may_have_been_like() -> None:
    pulse = Pulse()
    pulse.fit(1, 1)
    throttle, at = Throttle(pulse, 2.0), endpoint(0, Server(0, 50))
    for step in range(20):
        throttle.tell(at, (400, 8), Measured(100.0, 100.0, 8), step / 10)
        throttle.tell(at, (400, 900), Measured(5_000.0, 5_000.0, 900), step / 10 + APART_S)
        throttle.tell(at, (400, 8), Measured(50.0, 100.0, 8), step / 10 + 0.05, streamed=True)
    for _ in range(40):
        pulse.begin(0, 0, 2.0)
    left, late = Outcome(Fault.CALLER_LEFT), Outcome(Fault.DEADLINE)
    for step in range(200):
        throttle.failed(at, late, Cut(3_000.0, 400, streamed=False), 3.0 + step / 10)
        throttle.failed(at, left, Cut(20.0, 400, streamed=True), 3.05 + step / 10)
    assert pulse.limit_at[0] == np.inf, "long answers take as long, and who left left early"
    for step in range(200):
        throttle.failed(at, late, Cut(3_000.0, 400, streamed=True), 30.0 + step / 10)
    assert pulse.limit_at[0] < 50


def test_what_takes_long_while_the_process_itself_is_late_is_not_held_against_the_server() -> None:
    limits = []
    for late_ms in (0.0, 200.0):
        pulse = Pulse()
        pulse.fit(1, 1)
        throttle, at = Throttle(pulse, 2.0), endpoint(0, Server(0, 50))
        pulse.begin(0, 0, 0.0)
        fast = Measured(20.0, 20.0, 8)
        for step in range(200):
            throttle.tell(at, (400, 8), fast, step / 100)
            pulse.begin(0, 0, step / 100)
            pulse.end(0, 0, DELIVERED, step / 100, fast)
        throttle.late_ms = late_ms
        for _ in range(30):
            pulse.begin(0, 0, 2.0)
        for step in range(400):
            throttle.tell(at, (400, 8), Measured(300.0, 300.0, 8), 2.0 + step / 50)
        limits.append(pulse.limit_at[0])
    assert limits[0] < 31, "on a process in time they are a queue at the server"
    assert limits[1] == np.inf


def lone(capacity: int = 50) -> tuple[Pulse, Throttle, Endpoint]:
    """One endpoint, of which nothing is known."""
    pulse = Pulse()
    pulse.fit(1, 1)
    return pulse, Throttle(pulse, 2.0), endpoint(0, Server(0, capacity))


def taught(*, streamed: bool = False) -> tuple[Pulse, Throttle, Endpoint]:
    """One endpoint that is known to take 100 ms, with 40 under way."""
    pulse, throttle, at = lone()
    for step in range(20):
        usual = Measured(100.0, 100.0, 8)
        throttle.tell(at, (400, 8), usual, step / 10, streamed=streamed)
    pulse.in_flight_at[0] = 40
    return pulse, throttle, at


@pytest.mark.parametrize(
    "fault", [Outcome(Fault.OVERLOADED, 503), Outcome(Fault.SERVER_ERROR, 500)]
)
def test_a_server_that_is_starting_or_ill_says_nothing_of_how_much_it_manages(
    fault: Outcome,
) -> None:
    pulse, throttle, at = lone()
    pulse.in_flight_at[0] = 20
    throttle.failed(at, fault, None, 1.0)
    assert (pulse.limit_at[0], throttle.limited()) == (np.inf, 0)
    throttle.failed(at, REFUSED, None, 1.0)
    assert (pulse.limit_at[0], throttle.limited()) == (REFUSED_FACTOR * 20, 1)


def test_a_limit_is_none_where_a_server_declares_less_or_has_come_back_to_what_it_declares() -> (
    None
):
    pulse, throttle, at = lone(50)
    pulse.in_flight_at[0] = 80
    throttle.failed(at, REFUSED, None, 1.0)
    assert pulse.limit_at[0] == REFUSED_FACTOR * 80
    throttle.tell(endpoint(0, Server(0, 20)), (400, 8), Measured(5.0, 5.0, 8), 1.1)
    assert (pulse.limit_at[0], throttle.limited()) == (np.inf, 0)
    pulse, throttle, at = lone(50)
    pulse.in_flight_at[0] = 80
    throttle.failed(at, REFUSED, None, 1.0)
    for second in range(40):
        throttle.relax(2.0 + second)
    assert (pulse.limit_at[0], throttle.limited()) == (np.inf, 0)


def test_an_endpoint_that_comes_to_a_limited_server_has_its_limit_with_its_first_call() -> None:
    pulse, server = Pulse(), Server(0, 50)
    pulse.fit(2, 1)
    throttle = Throttle(pulse, 2.0)
    pulse.in_flight_at[0] = 20
    throttle.failed(endpoint(0, server), REFUSED, None, 1.0)
    throttle.tell(endpoint(1, server), (400, 8), Measured(5.0, 5.0, 8), 1.1)
    assert pulse.limit_at[:2].tolist() == [REFUSED_FACTOR * 20] * 2


def test_of_what_comes_whole_it_counts_how_long_all_of_it_took() -> None:
    pulse, throttle, at = taught()
    for step in range(100):
        throttle.tell(at, (400, 8), Measured(100.0, 3_000.0, 8), 3.0 + step / 10)
    assert pulse.limit_at[0] < 40


def given_up(throttle: Throttle, at: Endpoint, times: list[float], *, streamed: bool) -> None:
    late = Outcome(Fault.DEADLINE)
    for now_s in times:
        throttle.failed(at, late, Cut(3_000.0, 400, streamed=streamed), now_s)


@pytest.mark.parametrize("streamed", [True, False])
def test_of_many_that_are_given_up_at_a_moment_one_counts_until_the_server_is_limited(
    streamed: bool,
) -> None:
    crowd = [4.0] * 400 + [5.0] * 400
    pulse, throttle, at = taught(streamed=streamed)
    given_up(throttle, at, crowd, streamed=streamed)
    assert pulse.limit_at[0] == np.inf
    now_s = 6.0
    while pulse.limit_at[0] == np.inf:
        now_s += 1.01 * APART_S
        given_up(throttle, at, [now_s], streamed=streamed)
    found = pulse.limit_at[0]
    given_up(throttle, at, [now_s + 1.0] + [now_s + 2.0] * 400, streamed=streamed)
    assert pulse.limit_at[0] < 0.8 * found, "as they come"


@pytest.mark.parametrize("streamed", [True, False])
def test_by_what_is_usual_of_its_kind_it_is_judged_whether_the_process_itself_was_late(
    streamed: bool,
) -> None:
    """Of a stream the first token, of what comes whole all of it."""
    for usual_ms, counts in ((399.0, False), (401.0, True)):
        pulse, throttle, at = taught(streamed=streamed)
        if streamed:
            pulse.ttft_ms[0], pulse.service_s[0] = usual_ms, 9.0 - usual_ms / 50
        else:
            pulse.ttft_ms[0], pulse.service_s[0] = 800.0 - usual_ms, usual_ms / 1_000
        throttle.late_ms = 400.0
        usual = Measured(100.0, 100.0, 8)
        assert throttle.tell(at, (400, 8), usual, 3.0, streamed=streamed) == counts
        given_up(throttle, at, [4.0 + each / 20 for each in range(200)], streamed=streamed)
        assert (pulse.limit_at[0] < np.inf) == counts


@pytest.mark.parametrize("calm_s", [0.0, 20.0])
def test_many_that_are_told_together_teach_what_they_teach_one_by_one(calm_s: float) -> None:
    """Also where it is so calm that not all are learned from."""
    random, server = Random(7), Server(0, 12)
    alone, together = Pulse(), Pulse()
    for each in (alone, together):
        each.fit(1, 1)
    one, many, at = Throttle(alone, 6.0), Throttle(together, 6.0), endpoint(0, server)
    limits, now_s = set(), 0.0
    for _ in range(600):
        under_way = random.choice((4, 30, 70)) if calm_s <= now_s < 60.0 else 70
        if now_s < calm_s:
            under_way = 1
        alone.in_flight_at[0] = together.in_flight_at[0] = under_way
        slow = 1.0 if under_way < 60 else 12.0
        told = ToldMany([], [], [], [])
        for _ in range(random.randrange(12)):
            now_s += random.uniform(0.001, 0.06)
            size = random.choice(((80, 3), (900, 3), (80, 300)))
            took_ms = slow * size[1] * random.uniform(20.0, 80.0)
            one.tell(at, size, Measured(took_ms, took_ms, size[1]), now_s)
            told.kinds.append(kind_of(*size))
            told.took_ms.append(took_ms)
            told.under_way.append(under_way)
            told.at_s.append(now_s)
        many.tell_many(at, told)
        assert alone.limit_at[0] == together.limit_at[0]
        limits.add(alone.limit_at[0])
    assert len(limits) > 20


def test_kinds_of_many_are_those_of_each() -> None:
    random = Random(11)
    sizes = [
        (random.randrange(1 << random.randrange(1, 24)), random.randrange(5)) for _ in "x" * 99
    ]
    size_in, size_out = np.array(sizes).T
    assert kinds_of(size_in, size_out).tolist() == [kind_of(*each) for each in sizes]
