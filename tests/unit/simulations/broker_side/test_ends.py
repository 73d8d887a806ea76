"""What ends in slices is told to the throttle together, and at once where a limit may matter."""

from __future__ import annotations

import numpy as np

from broker.core.catalog import Band
from broker.core.health.measured import MeasuredMany
from simulations.broker_side.desk import Desk
from simulations.scenario import Scenario
from simulations.servers.listing import Listing
from simulations.supply import EndpointSpec, ProviderSpec, SharingServer

SLICE_S = 0.1
CAPACITY = 40


def desk() -> Desk:
    server = SharingServer(0.01, 5e-5, 5e-6, CAPACITY)
    band = Band(1, 10, 100, 1, 10, 100)
    endpoints = tuple(EndpointSpec(f"e{n}", server, band, capacity=CAPACITY) for n in range(4))
    scenario = Scenario("ends", 60.0, (ProviderSpec("p", endpoints),), ())
    return Desk(scenario, Listing(scenario), 1)


def test_limits_are_learned_alike_slice_by_slice_and_second_by_second() -> None:
    rng, at_once, later = np.random.default_rng(3), desk(), desk()
    at_once.pulse.in_flight[3] = 2 * CAPACITY  # it ends nothing, and is so full that all is told
    limits = set()
    for turn in range(1, 400):
        now_s = turn * SLICE_S
        number = np.sort(rng.integers(0, 3, 30))
        at_s = now_s - SLICE_S * rng.random(30)
        order = at_s.argsort()
        number, at_s = number[order], at_s[order]
        slow = 20.0 if 100 < turn < 250 else 1.0
        took_ms = slow * rng.uniform(80.0, 120.0, 30)
        sizes = np.full(30, 100), np.full(30, 50)
        busy = rng.integers(30, CAPACITY, 3)
        for each in (at_once, later):
            each.pulse.in_flight[:3] = busy
            seen = MeasuredMany(took_ms, took_ms, sizes[1])
            each.learn_many(number, sizes, seen, (at_s, np.zeros(30, dtype=bool)))
        if turn % 10 == 0:
            for each in (at_once, later):
                each.hear(now_s)
            assert at_once.pulse.limit.tolist() == later.pulse.limit.tolist()
            limits.add(later.pulse.limit_at[0])
    assert len(limits) > 4
