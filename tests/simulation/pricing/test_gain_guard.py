"""Where a loop of price, demand and delay begins to oscillate, found by running it; and that the
gain guard keeps every controller on the right side."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import pytest
from scipy.special import gammaincc

from pricing.book import FloatArray, PriceBook
from pricing.controllers import Controller
from pricing.controllers.excess import ExcessLoad
from pricing.controllers.pi import ProportionalIntegral
from pricing.controllers.shadow import ShadowPrice
from pricing.guardrails import answer_ticks, gain_limit, kick_shares
from pricing.snapshot import Bands, MarketSnapshot

TARGET = 0.5
LIST = 10**9
SMALL = 1e-4
"""A disturbance of ln price, small enough for the loop to be linear."""


def swings(
    controller: Controller[Any],
    elasticity: FloatArray,
    tau_ticks: int,
    ticks: int,
    guarded: bool = False,
    disturbance: float = SMALL,
) -> FloatArray:
    """|ln(price) - ln(clearing price)| over time, of shape (ticks, endpoints), one for each
    elasticity. Demand answers to the price of `tau_ticks` ago; list is off by `disturbance`."""
    size = elasticity.size
    band = Bands.from_rows(
        dict.fromkeys(range(size), (LIST // 1000, LIST, LIST * 1000, 0, 0, 0, 0, 0, 0))
    )
    state = controller.resume(PriceBook.from_matrix(1, band.listed), band)
    seen = deque([np.zeros(size)] * (tau_ticks + 1), maxlen=tau_ticks + 1)
    delay = np.full(size, float(tau_ticks)) if guarded else None
    path = np.empty((ticks, size))
    for tick in range(ticks):
        load = TARGET * np.exp(-elasticity * (seen[0] + disturbance))
        known = elasticity if guarded else None
        snapshot = MarketSnapshot(float(tick), 1.0, load, band, None, delay, known)
        state, proposed = controller.step(state, snapshot)
        seen.append(np.log(proposed.rates[0] / LIST))
        path[tick] = np.abs(seen[-1] + disturbance)
    return path


CONTROLLERS: dict[str, tuple[Controller[Any], float]] = {
    # Each with its gain: ln price in a tick for each unit of ln load, at the target.
    "excess": (ExcessLoad(target=TARGET, k_s=10.0), TARGET / 10.0),
    "pi": (ProportionalIntegral(target=TARGET, kp=0.0, ki_per_s=0.1), TARGET * 0.1),
    "shadow": (ShadowPrice(target=TARGET, speed=0.05, elasticity=1.0), 0.05),
}


@pytest.mark.parametrize("name", CONTROLLERS)
@pytest.mark.parametrize(("tau_ticks", "limit"), [(0, 2.0), (1, 1.0), (2, 0.618), (3, 0.445)])
def test_the_loop_begins_to_oscillate_at_the_gain_that_theory_says(
    name: str, tau_ticks: int, limit: float
) -> None:
    controller, gain = CONTROLLERS[name]
    tried = limit * np.linspace(0.9, 1.1, 81)
    path = swings(controller, tried / gain, tau_ticks, ticks=1_200 * (tau_ticks + 1))
    early, late = path[200:300].max(axis=0), path[-100:].max(axis=0)
    found = tried[late > early][0]
    assert found == pytest.approx(limit, rel=0.02)
    assert found == pytest.approx(gain_limit(tau_ticks), rel=0.01)
    assert (late[tried > found] > SMALL / 10).all(), "and beyond it always does"


@pytest.mark.parametrize(
    "controller",
    [
        ExcessLoad(target=TARGET, k_s=0.5),
        ProportionalIntegral(target=TARGET, kp=0.0, ki_per_s=2.0),
        ProportionalIntegral(target=TARGET, kp=3.0, ki_per_s=0.5),
        ProportionalIntegral(target=TARGET, kp=0.5, ki_per_s=3.0),
        ShadowPrice(target=TARGET, speed=1.0),
    ],
    ids=["excess", "integral", "mostly proportional", "mostly integral", "shadow"],
)
@pytest.mark.parametrize("tau_ticks", [0, 1, 3, 8])
def test_the_gain_guard_settles_what_would_swing_without_it(
    controller: Controller[Any], tau_ticks: int
) -> None:
    elasticity = np.array([0.5, 2.0, 8.0])
    path = swings(controller, elasticity, tau_ticks, 120 * (tau_ticks + 2), True, 0.05)
    assert (path[-10:] < 1e-3).all()
    if tau_ticks:
        loose = swings(controller, elasticity, tau_ticks, 120 * (tau_ticks + 2), False, 0.05)
        assert loose[-50:].max() > 0.05


@pytest.mark.parametrize("tau_ticks", [*range(9), 20, 60])
def test_no_mix_of_proportional_and_integral_gain_within_the_guard_can_swing(
    tau_ticks: int,
) -> None:
    """x[t+1] - x[t] = -(push + kick) x[t-tau] + kick x[t-tau-1] has no root outside the unit circle
    while kick is at most 1/2 and push at most (1 - kick) of the limit: twice what is allowed."""
    for kick in np.linspace(0.0, 0.5, 11):
        push = 0.999 * (1.0 - kick) * gain_limit(tau_ticks)
        polynomial = np.zeros(tau_ticks + 3)
        polynomial[0], polynomial[1] = 1.0, -1.0
        polynomial[-2] += push + kick
        polynomial[-1] -= kick
        assert np.abs(np.roots(polynomial)).max() < 1.0


@pytest.mark.parametrize("mean_ticks", [0.5, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("cv", [0.05, 0.3, 0.6, 1.0, 2.0])
def test_calls_under_way_delay_the_answer_by_no_more_than_half_a_call_at_once(
    mean_ticks: float, cv: float
) -> None:
    """Who was there before a price stays: in a loop whose load is the calls in flight, a gain that
    is just stable by `answer_ticks` is stable whatever the spread of the lengths of calls."""
    alive = np.ceil(mean_ticks * (1.0 + cv) * 8.0).astype(int) + 4
    ages = (np.arange(20 * alive) + 0.5) / 20.0
    longer = gammaincc(1.0 / cv**2, ages / (mean_ticks * cv**2))  # of calls whose lengths are gamma
    there = longer.reshape(alive, 20).mean(axis=1)
    tau_ticks = math.ceil(float(answer_ticks(np.array([mean_ticks]), 1.0)[0]))
    gain = 0.999 * gain_limit(tau_ticks)
    # x[t+1] = x[t] - gain * sum of there[j] x[t-j]
    polynomial = np.concatenate(([1.0, -1.0], np.zeros(alive - 1)))
    polynomial[1:] += gain * there / there.sum()
    assert np.abs(np.roots(polynomial)).max() < 1.0


@pytest.mark.parametrize("kick", [0.0, 0.1, 0.4, 9.0])
@pytest.mark.parametrize("push", [0.0, 0.02, 0.5, 7.0])
def test_the_guard_of_both_parts_leaves_what_is_safe_and_no_more(kick: float, push: float) -> None:
    elasticity, tau_ticks = np.array([0.0, 0.3, 1.0, 2.0, 20.0]), 3
    bands = Bands.from_rows(dict.fromkeys(range(5), (1, 2, 3, 0, 0, 0, 0, 0, 0)))
    seen = MarketSnapshot(
        *(0.0, 1.0, np.full(5, TARGET), bands, None), np.full(5, float(tau_ticks)), elasticity
    )
    at_once, a_tick = kick_shares(kick, push, seen)
    kicked, pushed = at_once * kick * elasticity, a_tick * push * elasticity
    allowed = 0.5 * (1.0 - 2.0 * kicked) * gain_limit(tau_ticks)
    assert (kicked <= 0.25 + 1e-12).all()
    assert (pushed <= allowed + 1e-12).all()
    assert ((at_once == 1.0) | np.isclose(kicked, 0.25)).all()
    assert ((a_tick == 1.0) | np.isclose(pushed, allowed)).all()


def test_the_guard_moves_nothing_where_what_was_measured_is_no_number() -> None:
    bands = Bands.from_rows({0: (1, 2, 3, 0, 0, 0, 0, 0, 0)})
    nothing = np.array([math.nan])
    seen = MarketSnapshot(0.0, 1.0, np.ones(1), bands, None, np.ones(1), nothing)
    assert kick_shares(0.1, 0.1, seen)[0] == 0.0
