"""Shocks, and how long prices take after them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from simulations.demand import Steps
from simulations.files.load import parse
from simulations.fluid.yardstick import Yardstick
from simulations.market import run
from simulations.measured.excess import excess_load, full_since
from simulations.measured.record import Run
from simulations.measured.settling import Shock, settling_s, shocks_of
from simulations.scenario import Scenario
from tests.unit.simulations.files.test_scenario_files import SMALL

LIST_MICROS = 400_000.0


def scenario(*from_s: float, **more: Any) -> Scenario:
    small = parse(SMALL, "small.toml").build([("horizon_s", 2_000.0), ("providers.0.copies", 1)])
    steps = Steps((0.0, *from_s), (1.0,) * (len(from_s) + 1))
    return replace(small, classes=(replace(small.classes[0], arrivals=steps),), **more)


def priced(of: Scenario, price: np.ndarray[Any, Any], load: float = 0.5) -> Run:
    """A run of one endpoint with this price over list at each second."""
    size = price.size
    ticks = {
        "at_s": np.arange(1.0, size + 1.0),
        "endpoint": np.zeros(size, dtype=np.int16),
        "price_out_micros": price * LIST_MICROS,
        "price_in_micros": np.zeros(size),
        "price_call_nanos": np.zeros(size),
        "load": np.full(size, load),
        "present": np.ones(size),
    }
    short = run(replace(of, horizon_s=1.0, warm_up_s=0.0), 1)
    return replace(short, ticks=ticks, ended_s=float(size))


def test_jumps_that_follow_each_other_are_one_shock() -> None:
    of = scenario(600.0, 630.0, 660.0, 1_500.0)
    assert shocks_of(of) == [
        Shock(0.0, 0.0, 600.0),
        Shock(600.0, 660.0, 1_500.0),
        Shock(1_500.0, 1_500.0, 2_000.0),
    ]
    assert shocks_of(replace(of, warm_up_s=700.0)) == [Shock(1_500.0, 1_500.0, 2_000.0)]
    assert shocks_of(replace(of, warm_up_s=1_900.0)) == []


def test_a_price_has_settled_when_it_stays() -> None:
    of = scenario(1_000.0, warm_up_s=900.0)
    at = np.arange(2_000.0)
    price = np.where(at < 1_000.0, 1.0, 3.0 - 2.0 * np.exp(-np.maximum(at - 1_000.0, 0) / 100.0))
    # 2 exp(-t / 100) is 5% of 3 at t = 259.
    assert settling_s(priced(of, price), of) == pytest.approx(259.0, abs=35.0)


def test_chance_is_not_taken_for_a_price_that_never_settles() -> None:
    of = scenario(1_000.0, warm_up_s=900.0)
    at, rng = np.arange(2_000.0), np.random.default_rng(3)
    walk = np.convolve(rng.standard_normal(2_039), np.ones(40) / 40**0.5, mode="valid")
    price = np.where(at < 1_100.0, 1.0, 3.0) * np.exp(0.06 * walk)
    assert settling_s(priced(of, price), of) < 450.0


def test_without_a_shock_nothing_settles() -> None:
    of = scenario(warm_up_s=100.0)
    assert np.isnan(settling_s(priced(of, np.ones(2_000)), of))


def test_load_is_judged_where_the_optimum_has_been_full_for_a_while() -> None:
    edges = np.array([0.0, 500.0, 1_000.0, 1_500.0, 2_000.0])
    full = np.array([[0.4], [1.0], [1.0], [0.7]])
    best = Yardstick(edges, np.ones(4), np.ones((4, 1)), full)
    assert full_since(best)[:, 0].tolist() == [np.inf, 500.0, 500.0, np.inf]
    of = scenario()
    done = priced(of, np.ones(2_000))
    at_s = done.ticks["at_s"]
    load = np.where((at_s > 800.0) & (at_s <= 1_500.0), 0.83, 9.0)
    done = replace(done, ticks={**done.ticks, "load": load})
    assert excess_load(done, of, best) == pytest.approx(0.83)
    never = replace(best, load=np.full((4, 1), 0.9))
    assert np.isnan(excess_load(done, of, never))
