"""What shadow prices of a fleet cost: cold, and again after every class has moved a little.

    python -m tests.benchmarks.shadow_prices [classes] [endpoints]

The last line is one JSON object; the figures are medians in milliseconds of CPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace

import numpy as np

from pricing.equilibrium import WelfareOptimum, welfare_optimum
from pricing.fluid import FluidMarket

CLASSES, ENDPOINTS = 100, 300
ROUNDS = 5
DRIFT = 0.05
"""Standard deviation of ln demand and ln capacity from one tick to the next."""


def main() -> None:
    """Solve cold and warm in turns, on four kinds of market."""
    sizes = [int(each) for each in sys.argv[1:3]] or [CLASSES, ENDPOINTS]
    cold, warm = [], []
    for kind in (various, alike, by_speed, scarce):
        rng = np.random.default_rng(1)
        market = kind(rng, *sizes)
        laps = [measure(rng, market) for _ in range(ROUNDS)]
        colds, warms = zip(*laps, strict=True)
        cold.append(statistics.median(colds))
        warm.append(statistics.median(warms))
        sys.stdout.write(f"{kind.__name__:8} cold {cold[-1]:8.1f} ms   warm {warm[-1]:7.1f} ms\n")
    # Of all kinds the slowest: a tick has to bear them all.
    figures = {"cold_ms": round(max(cold), 1), "warm_ms": round(max(warm), 1)}
    sys.stdout.write(json.dumps(figures) + "\n")


def measure(rng: np.random.Generator, market: FluidMarket) -> tuple[float, float]:
    """Milliseconds of a cold solution, and of a warm one of a market that has drifted."""
    moved = replace(
        market,
        wanted=market.wanted * np.exp(rng.normal(0.0, DRIFT, market.wanted.size)),
        capacity=market.capacity * np.exp(rng.normal(0.0, DRIFT, market.capacity.size)),
    )
    begun = time.process_time()
    before = welfare_optimum(market)
    cold_ms = (time.process_time() - begun) * 1000.0
    begun = time.process_time()
    after = welfare_optimum(moved, before)
    warm_ms = (time.process_time() - begun) * 1000.0
    assert_optimal(moved, after)
    return cold_ms, warm_ms


def assert_optimal(market: FluidMarket, best: WelfareOptimum) -> None:
    """What the duals bound cannot be beaten, and was reached."""
    bound = market.wanted @ best.class_surplus + market.capacity @ best.congestion
    reached = (market.value - market.cost) @ best.flow
    assert abs(bound - reached) <= 1e-6 * bound, "primal and dual differ"


def various(rng: np.random.Generator, classes: int, endpoints: int) -> FluidMarket:
    """Each class works and values each endpoint its own way."""
    work = rng.uniform(0.3, 3.0, endpoints) * rng.uniform(0.5, 2.0, (classes, 1))
    value = rng.gamma(4.0, 1.0, (classes, 1)) * rng.uniform(0.5, 1.5, (classes, endpoints))
    capacity = rng.integers(1, 16, endpoints).astype(float)
    wanted = rng.gamma(2.0, 5.0, classes)
    return FluidMarket.dense(wanted, capacity, value, work, rng.uniform(0.05, 0.3, endpoints))


def alike(rng: np.random.Generator, classes: int, endpoints: int) -> FluidMarket:
    """Endpoints that differ in nothing but capacity: as degenerate as a market can be."""
    value = np.repeat(rng.gamma(4.0, 1.0, (classes, 1)), endpoints, axis=1)
    capacity = rng.integers(1, 16, endpoints).astype(float)
    wanted = np.full(classes, 2.0 * capacity.sum() / classes)
    return FluidMarket.dense(wanted, capacity, value, np.ones(value.shape))


def by_speed(rng: np.random.Generator, classes: int, endpoints: int) -> FluidMarket:
    """Endpoints that differ in speed alone, so that every class is content with each."""
    value = np.repeat(rng.gamma(4.0, 1.0, (classes, 1)), endpoints, axis=1)
    capacity = rng.integers(1, 16, endpoints).astype(float)
    work = rng.uniform(0.5, 2.0, (classes, 1)) * rng.uniform(0.5, 2.0, endpoints)
    return FluidMarket.dense(np.full(classes, capacity.sum() / classes), capacity, value, work)


def scarce(rng: np.random.Generator, classes: int, endpoints: int) -> FluidMarket:
    """Three times as much work wanted as there are slots for."""
    market = various(rng, classes, endpoints)
    return replace(market, capacity=market.capacity / 3.0)


if __name__ == "__main__":
    main()
