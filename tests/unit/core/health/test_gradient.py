"""The limit of calls under way that is learned from how long they take."""

from __future__ import annotations

import heapq
import math
from random import Random

import pytest

from broker.core.health.gradient import (
    HARMLESS_MS,
    LEAST,
    REFUSED_FACTOR,
    RELAX_AFTER_S,
    SAMPLES_MIN,
    TOLERANCE,
    WINDOW_S,
    Gradient,
    kind_of,
)


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
    gradient: Gradient,
    server: Server,
    per_s: float,
    begin_s: float,
    lasts_s: float,
    patience_s: float = math.inf,
) -> tuple[int, float]:
    """Offer calls, of which those above the limit are refused, and given up after `patience_s`,
    which the server does not notice; return how many ended, and the mean time that the last half
    took, in ms."""
    running: list[tuple[float, float, bool]] = []
    took_ms, now_s = [1.0], begin_s
    while now_s < begin_s + lasts_s:
        now_s += server.random.expovariate(per_s)
        while running and running[0][0] <= now_s:
            end_s, started_s, cut = heapq.heappop(running)
            lasted_ms = (end_s - started_s) * 1_000
            if cut:
                gradient.cut(lambda kind: kind == 0, lasted_ms, len(running) + 1, end_s)
                continue
            took_ms.append(lasted_ms)
            gradient.tell(0, lasted_ms, len(running) + 1, end_s)
        if len(running) < gradient.limit:
            end_s, due_s = server.ends_s(now_s), now_s + patience_s
            heapq.heappush(running, (min(end_s, due_s), now_s, end_s > due_s))
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


def test_a_limit_far_above_comes_down_within_seconds_and_not_for_one_slow_moment() -> None:
    gradient, server = Gradient(20_000.0, 0.0), Server(slots=8)
    drive(gradient, server, per_s=30.0, begin_s=0.0, lasts_s=5.0)
    drive(gradient, server, per_s=240.0, begin_s=5.0, lasts_s=15.0)
    assert gradient.limit <= 2 * 8 * (TOLERANCE + 3)
    calm = Gradient(200.0, 0.0)
    for step in range(100):
        calm.tell(0, 10.0 if step < 90 else 200.0, 60, step / 20)
    assert calm.limit >= 100.0


@pytest.mark.parametrize(
    ("patience", "share"),
    [(1.2, 0.4), (1.5, 0.6), (2.0, 0.65), (2.5, 0.75), (4.0, 0.75), (10, 0.75)],
)
def test_calls_that_die_of_their_deadline_teach_the_limit(patience: float, share: float) -> None:
    """Of a server that declares 2,500 times what it has, nothing else may come to an end."""
    gradient, server = Gradient(40_000.0, 0.0), Server(slots=16)
    patience_s = patience * server.service_ms / 1_000
    drive(gradient, server, 40.0, 0.0, 5.0, patience_s)
    drive(gradient, server, 480.0, 5.0, 10.0, patience_s)
    ended, _ = drive(gradient, server, 480.0, 15.0, 70.0, patience_s)
    assert gradient.limit <= 16 * (TOLERANCE + 3)
    assert ended >= share * 160.0 * 70.0, "who dies in the queue takes nothing from the others"


@pytest.mark.parametrize("patience", [0.9, 1.0, 1.1])
def test_hasty_callers_do_not_make_a_server_with_room_look_full(patience: float) -> None:
    def served(gradient: Gradient) -> int:
        server, patience_s = Server(slots=64), patience * 0.1
        drive(gradient, server, 300.0, 0.0, 30.0, patience_s)
        return drive(gradient, server, 300.0, 30.0, 90.0, patience_s)[0]

    class Unlimited(Gradient):
        def cut(self, *_: object) -> bool:
            return False

    assert served(Gradient(200.0, 0.0)) >= 0.9 * served(Unlimited(200.0, 0.0))


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


class Ill(Server):
    """A server that is slow, or has but a few of its slots, or refuses all, for a while."""

    def __init__(self, slots: int, slower: float, left: int) -> None:
        super().__init__(slots)
        self.slower = slower
        self.left = left

    def ends_s(self, now_s: float) -> float:
        if not AWAY_S <= now_s < BACK_S:
            return super().ends_s(now_s)
        held = [heapq.heappop(self.free_s) for _ in range(len(self.free_s) - self.left)]
        begins_s = max(heapq.heappop(self.free_s), now_s)
        end_s = begins_s + self.service_ms * self.slower / 1_000
        for each in (*held, end_s):
            heapq.heappush(self.free_s, each)
        return end_s


AWAY_S, BACK_S, RECOVERS_S = 20.0, 30.0, 5.0


@pytest.mark.parametrize(("slower", "left"), [(20.0, 64), (1.0, 4)])
@pytest.mark.parametrize("patience_s", [math.inf, 1.0])
def test_a_server_that_was_ill_has_its_calls_again_within_five_seconds(
    slower: float, left: int, patience_s: float
) -> None:
    gradient, server = Gradient(128.0, 0.0), Ill(64, slower, left)
    drive(gradient, server, 400.0, 0.0, AWAY_S, patience_s)
    drive(gradient, server, 400.0, AWAY_S, BACK_S - AWAY_S, patience_s)
    assert gradient.limit < 30.0, "it is to have 40 under way again"
    drive(gradient, server, 400.0, BACK_S, RECOVERS_S, patience_s)
    ended, _ = drive(gradient, server, 400.0, BACK_S + RECOVERS_S, 10.0, patience_s)
    assert ended >= 0.95 * 400.0 * 10.0


def test_a_server_that_refused_all_has_its_calls_again_within_five_seconds() -> None:
    gradient, server = Gradient(128.0, 0.0), Server(64)
    drive(gradient, server, 400.0, 0.0, 20.0)
    for step in range(100):
        gradient.refused(max(1, 40 - step), 20.0 + step / 10)
    assert gradient.limit == LEAST
    drive(gradient, server, 400.0, 30.0, RECOVERS_S)
    assert gradient.limit >= 45.0


@pytest.mark.parametrize("service_ms", [20.0, 100.0, 2_000.0])
def test_a_limit_that_leaps_lands_where_there_is_no_queue_yet(service_ms: float) -> None:
    """What it lets in shows itself only after as long as it takes."""
    gradient, server = Gradient(400.0, 0.0), Server(16, service_ms)
    per_s = 16_000.0 / service_ms
    drive(gradient, server, per_s / 8, 0.0, 60 * service_ms / 1_000)
    gradient.refused(2, 60 * service_ms / 1_000)
    begin_s, limits = 62 * service_ms / 1_000, list[float]()
    for _ in range(200):
        drive(gradient, server, 3 * per_s, begin_s, 2 * service_ms / 1_000)
        begin_s += 2 * service_ms / 1_000
        limits.append(gradient.limit)
    assert max(limits) >= 16
    assert max(limits) <= 16 * (TOLERANCE + 3)


def test_a_server_that_refuses_beyond_so_many_is_not_leapt_upon() -> None:
    gradient = Gradient(128.0, 0.0)
    now_s, refusals = 0.0, 0
    for step in range(2_000):
        now_s = step / 20
        under_way = math.ceil(gradient.limit)
        if under_way > 40:
            refusals += gradient.refused(under_way, now_s)
        else:
            gradient.tell(0, 100.0, under_way, now_s)
    assert 10 <= refusals <= 100 / 3, "it is felt for every few seconds"


def test_long_answers_among_short_ones_are_no_sign_of_a_queue() -> None:
    gradient = Gradient(50.0, 0.0)
    for step in range(2_000):
        tokens = 1 if step < 1_000 else 1_000
        gradient.tell(kind_of(400, tokens), 20.0 + tokens, 40, step / 100)
    assert gradient.limit == 50.0


@pytest.mark.parametrize("slower", [6.0, 10.0, 16.0])
def test_a_server_that_became_slow_for_good_is_learned_anew(slower: float) -> None:
    gradient = Gradient(128.0, 0.0)
    drive(gradient, Server(slots=128), per_s=400.0, begin_s=0.0, lasts_s=30.0)
    slow = Server(slots=128, service_ms=100.0 * slower)
    per_s = 40.0 / slow.service_ms * 1_000
    drive(gradient, slow, per_s=per_s, begin_s=30.0, lasts_s=150.0)
    ended, _ = drive(gradient, slow, per_s=per_s, begin_s=180.0, lasts_s=60.0)
    assert ended >= 0.85 * per_s * 60.0


@pytest.mark.parametrize("spread", [0.3, 0.5, 0.7])
def test_times_that_differ_by_nature_are_no_sign_of_a_queue(spread: float) -> None:
    gradient, random = Gradient(64.0, 0.0), Random(3)
    for step in range(40_000):
        took_ms = 100.0 * math.exp(random.gauss(0.0, spread))
        gradient.tell(0, took_ms, min(40, math.ceil(gradient.limit)), step / 100)
        assert gradient.limit >= 40.0


@pytest.mark.parametrize("share", [0.01, 0.1, 0.7])
def test_answers_out_of_a_cache_do_not_make_the_others_late(share: float) -> None:
    gradient, random, limits = Gradient(64.0, 0.0), Random(4), []
    for step in range(40_000):
        took_ms = 20.0 if random.random() < share else 400.0
        gradient.tell(0, took_ms, min(40, math.ceil(gradient.limit)), step / 100)
        limits.append(min(gradient.limit, 40.0))
    assert sum(limits) / len(limits) >= 30.0


def test_one_that_took_for_ever_counts_no_more_than_one_that_was_late() -> None:
    gradient = Gradient(64.0, 0.0)
    for step in range(10_000):
        took_ms = 1e9 if step % 10 == 9 else 100.0
        gradient.tell(0, took_ms, 40, step / 100)
    assert gradient.limit == 64.0


def test_refusals_that_come_together_cut_once_and_never_below_the_least() -> None:
    gradient = Gradient(50.0, 0.0)
    assert gradient.refused(20, 1.0)
    for under_way in range(19, 0, -1):
        assert not gradient.refused(under_way, 1.0 + WINDOW_S / 2)
    assert gradient.limit == REFUSED_FACTOR * 20
    for step in range(20):
        gradient.refused(1, 2.0 + step)
    assert gradient.limit == LEAST
    assert not gradient.refused(1, 50.0)


def test_whom_nothing_is_left_of_a_server_rises_by_itself() -> None:
    gradient = Gradient(50.0, 0.0)
    gradient.refused(4, 1.0)
    assert not gradient.relax(1.0 + RELAX_AFTER_S / 2)
    for step in range(60):
        gradient.relax(2.0 + step * RELAX_AFTER_S)
    assert gradient.limit == 50.0


def test_a_capacity_that_was_declared_anew_counts_at_once() -> None:
    gradient = Gradient(8.0, 0.0)
    gradient.allow(200.0)
    assert gradient.limit == 200.0
    assert gradient.refused(100, 1.0)
    gradient.allow(40.0)
    assert gradient.limit == 40.0


def test_few_samples_decide_nothing() -> None:
    gradient = Gradient(50.0, 0.0)
    for step in range(SAMPLES_MIN):
        gradient.tell(0, 100.0, 50, 0.01 * step)
    for step in range(SAMPLES_MIN - 1):
        assert not gradient.tell(0, 10_000.0, 50, 1.0 + step)
    assert gradient.tell(0, 10_000.0, 50, 30.0)


@pytest.mark.parametrize("least", [LEAST, 64.0])
def test_a_fast_server_short_of_a_processor_refuses_nobody_for_a_tenth_of_a_second(
    least: float,
) -> None:
    """Whoever is refused waits for a second; 2,363 calls were, of a server that takes 1 ms."""
    gradient, random = Gradient(20_000.0, 0.0, least), Random(6)
    for step in range(8_000):
        crowded = step >= 2_000
        took_ms = random.uniform(20.0, 160.0) if crowded else random.uniform(0.5, 2.0)
        gradient.tell(0, took_ms, 64 if crowded else 3, step / 200)
        assert gradient.limit == 20_000.0


def test_a_fast_server_with_a_queue_of_a_second_is_limited_as_any_other() -> None:
    gradient, server = Gradient(20_000.0, 0.0), Server(slots=8, service_ms=2.0)
    drive(gradient, server, per_s=100.0, begin_s=0.0, lasts_s=5.0)
    ended, took_ms = drive(gradient, server, per_s=6_000.0, begin_s=5.0, lasts_s=15.0)
    assert took_ms <= 8 * HARMLESS_MS
    assert ended >= 0.95 * 4_000.0 * 15.0
