"""The limit of calls under way that is learned from how long they take."""

from __future__ import annotations

import heapq
from random import Random

from broker.core.gradient import LEAST, SAMPLES_MIN, TOLERANCE, Gradient, kind_of


class Server:
    """A server with so many slots and a queue, driven in simulated time."""

    def __init__(self, slots: int, service_ms: float = 100.0, seed: int = 1) -> None:
        self.free_s = [0.0] * slots
        self.service_ms = service_ms
        self.random = Random(seed)

    def ends_s(self, now_s: float) -> float:
        begins_s = max(heapq.heappop(self.free_s), now_s)
        end_s = begins_s + self.service_ms * self.random.uniform(0.8, 1.2) / 1_000
        heapq.heappush(self.free_s, end_s)
        return end_s


def drive(
    gradient: Gradient, server: Server, per_s: float, begin_s: float, lasts_s: float
) -> tuple[int, float]:
    """Offer calls, of which those above the limit are refused; return how many ended, and the mean
    time that the last half took, in ms."""
    running: list[tuple[float, float]] = []
    took_ms, now_s = [], begin_s
    while now_s < begin_s + lasts_s:
        now_s += server.random.expovariate(per_s)
        while running and running[0][0] <= now_s:
            end_s, started_s = heapq.heappop(running)
            took_ms.append((end_s - started_s) * 1_000)
            gradient.tell(0, took_ms[-1], len(running) + 1, end_s)
        if len(running) < gradient.limit:
            heapq.heappush(running, (server.ends_s(now_s), now_s))
    late = took_ms[len(took_ms) // 2 :]
    return len(took_ms), sum(late) / len(late)


def test_what_is_declared_too_high_is_cut_to_what_the_server_manages() -> None:
    gradient, server = Gradient(200.0, 0.0), Server(slots=8)
    drive(gradient, server, per_s=30.0, begin_s=0.0, lasts_s=10.0)
    ended, took_ms = drive(gradient, server, per_s=240.0, begin_s=10.0, lasts_s=40.0)
    assert 8 <= gradient.limit <= 8 * (TOLERANCE + 3)
    assert took_ms <= 100.0 * (TOLERANCE + 3)
    assert ended >= 0.95 * 80.0 * 40.0, "and it is kept busy"


def test_a_queue_that_stands_never_comes_to_be_taken_for_usual() -> None:
    gradient, server = Gradient(200.0, 0.0), Server(slots=8)
    drive(gradient, server, per_s=30.0, begin_s=0.0, lasts_s=5.0)
    drive(gradient, server, per_s=240.0, begin_s=5.0, lasts_s=300.0)
    assert gradient.limit <= 8 * (TOLERANCE + 3)


def test_a_server_with_room_is_not_limited() -> None:
    gradient, server = Gradient(64.0, 0.0), Server(slots=64)
    drive(gradient, server, per_s=500.0, begin_s=0.0, lasts_s=30.0)
    assert gradient.limit == 64.0


def test_the_limit_grows_again_once_the_server_has_room() -> None:
    gradient, server = Gradient(100.0, 0.0), Server(slots=4)
    drive(gradient, server, per_s=20.0, begin_s=0.0, lasts_s=5.0)
    drive(gradient, server, per_s=200.0, begin_s=5.0, lasts_s=30.0)
    cut = gradient.limit
    drive(gradient, Server(slots=100), per_s=800.0, begin_s=40.0, lasts_s=60.0)
    assert gradient.limit > 2 * cut


def test_long_answers_among_short_ones_are_no_sign_of_a_queue() -> None:
    gradient = Gradient(50.0, 0.0)
    for step in range(2_000):
        tokens = 1 if step < 1_000 else 1_000
        gradient.tell(kind_of(400, tokens), 20.0 + tokens, 40, step / 100)
    assert gradient.limit == 50.0


def test_a_server_that_became_slow_for_good_is_learned_anew() -> None:
    gradient = Gradient(50.0, 0.0)
    for step in range(200):
        gradient.tell(0, 10.0, 40, step / 10)
    for step in range(200, 4_000):
        under_way = min(40, int(gradient.limit))
        gradient.tell(0, 100.0, under_way, step / 10)
    assert gradient.limit > 10.0


def test_a_refusal_by_the_server_itself_cuts_at_once_and_never_below_the_least() -> None:
    gradient = Gradient(50.0, 0.0)
    assert gradient.refused(20)
    assert gradient.limit == 18.0
    for _ in range(10):
        gradient.refused(1)
    assert gradient.limit == LEAST
    assert not gradient.refused(1)


def test_few_samples_decide_nothing() -> None:
    gradient = Gradient(50.0, 0.0)
    gradient.tell(0, 1.0, 50, 0.1)
    for step in range(SAMPLES_MIN - 2):
        assert not gradient.tell(0, 100.0, 50, 1.0 + step)
    assert gradient.tell(0, 100.0, 50, 30.0)
