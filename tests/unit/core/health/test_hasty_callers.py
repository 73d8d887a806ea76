"""Limits of healthy servers, whose callers give up, or whose broker has much to do."""

from __future__ import annotations

import heapq
import math
from random import Random

import numpy as np
import pytest

from broker.core.health.measured import Measured
from broker.core.health.pulse import Pulse
from broker.core.health.throttle import Cut, Throttle
from broker.core.outcome import Fault, Outcome
from tests.unit.core.health.test_throttle import DELIVERED, Server, endpoint

GAVE_UP = Outcome(Fault.CALLER_LEFT)
MEDIAN_MS = 100.0


def serve(
    per_s: float, spread: float, hasty: float, patience_ms: float, seed: int = 3
) -> tuple[float, float]:
    """For a minute a server takes as long for each however many there are; return the share of
    calls for which it was held to be full, and the limit that stood for most of the time."""
    pulse = Pulse()
    pulse.fit(1, 1)
    throttle, server, random = Throttle(pulse, 2.0), endpoint(0, Server(0, 200)), Random(seed)
    now_s, relaxed_s, calls, refused = 0.0, 0.0, 0, 0
    running: list[tuple[float, float, bool]] = []
    limits = []
    while now_s < 60.0:
        now_s += random.expovariate(per_s)
        if now_s > relaxed_s + 1:
            throttle.relax(now_s)
            relaxed_s = now_s
        while running and running[0][0] <= now_s:
            end_s, began_s, gave_up = heapq.heappop(running)
            took_ms = (end_s - began_s) * 1e3
            if gave_up:
                throttle.failed(server, GAVE_UP, Cut(took_ms, 400, streamed=True), end_s)
                pulse.end(0, 0, GAVE_UP, end_s, None)
            else:
                measured = Measured(took_ms, took_ms, 50)
                throttle.tell(server, (400, 50), measured, end_s, streamed=True)
                pulse.end(0, 0, DELIVERED, end_s, measured)
        calls += 1
        limits.append(pulse.limit_at[0])
        if pulse.load_of(0) >= pulse.limit_at[0]:
            refused += 1
            continue
        took_ms = MEDIAN_MS * math.exp(random.gauss(0, spread))
        most_ms = patience_ms if random.random() < hasty else math.inf
        heapq.heappush(running, (now_s + min(took_ms, most_ms) / 1e3, now_s, took_ms > most_ms))
        pulse.begin(0, 0, now_s)
    return refused / calls, float(np.median(limits))


@pytest.mark.parametrize(
    ("per_s", "spread", "hasty", "patience_ms"),
    [
        (400, 0.5, 0.0, 0),
        (400, 0.5, 0.05, 110),
        (400, 0.5, 0.1, 150),
        (400, 0.8, 0.1, 200),
        (200, 0.5, 0.1, 150),
        (400, 0.5, 1.0, 228),
        (400, 0.8, 1.0, 373),
        (100, 0.5, 1.0, 228),
    ],
)
def test_a_healthy_server_is_not_limited_for_hasty_callers(
    per_s: float, spread: float, hasty: float, patience_ms: float
) -> None:
    refused, limit = serve(per_s, spread, hasty, patience_ms)
    assert refused <= 0.001
    assert limit == np.inf


@pytest.mark.parametrize("seed", [1, 3, 5])
def test_where_a_third_are_hasty_and_times_vary_a_server_is_emptied_once_at_most(seed: int) -> None:
    refused, limit = serve(400, 0.8, 0.3, 150, seed)
    assert refused <= 0.04, "which takes two seconds, to see how long things take alone"
    assert limit >= 200


def test_a_late_process_does_not_hold_a_healthy_server_for_slow() -> None:
    pulse = Pulse()
    pulse.fit(1, 1)
    throttle, server = Throttle(pulse, 2.0), endpoint(0, Server(0, 64))
    random = Random(1)
    pulse.in_flight_at[0] = 10
    for count in range(60_000):
        now_s = count / 1_000
        throttle.late_ms = 12.0 if count > 5_000 else 0.0
        took_ms = 60.0 if random.random() < 0.02 else random.uniform(8, 12)
        measured = Measured(took_ms, took_ms, 50)
        throttle.tell(server, (400, 50), measured, now_s)
        pulse.begin(0, 0, now_s)
        pulse.end(0, 0, DELIVERED, now_s, measured)
    assert pulse.limit_at[0] == np.inf
