from __future__ import annotations

import math

import numpy as np
import pytest

from pricing.book import FloatArray, PriceBook
from pricing.controllers.excess import ExcessLoad
from pricing.controllers.pi import PiState, ProportionalIntegral
from pricing.snapshot import Bands
from tests.unit.pricing.markets import TOKENS, bands, snapshot

PI = ProportionalIntegral(target=0.5, kp=0.2, ki_per_s=0.1)
OF = bands(TOKENS)  # floor 1, list 2, ceiling 8 USD


def ticks(
    load: float, state: PiState | None = None, count: int = 1, of: Bands = OF
) -> tuple[PiState, FloatArray]:
    if state is None:
        state, _ = PI.step(PI.resume(PriceBook.empty(), of), snapshot(0.5, of))
    for _ in range(count):
        state, proposed = PI.step(state, snapshot(load, of))
    return state, proposed.rates


def test_load_at_target_moves_nothing() -> None:
    np.testing.assert_allclose(ticks(0.5, count=50)[1], OF.listed)


def test_a_rush_is_answered_at_once_and_then_more_and_more() -> None:
    state, first = ticks(1.5)
    assert first[0, 0] == pytest.approx(2e6 * math.exp(0.2 + 0.1))
    _, later = ticks(1.5, state, count=3)
    assert later[0, 0] == pytest.approx(2e6 * math.exp(0.2 + 0.4))


def test_when_the_rush_is_over_the_answer_to_it_goes_and_what_added_up_stays() -> None:
    state, _ = ticks(1.5, count=4)
    assert ticks(0.5, state)[1][0, 0] == pytest.approx(2e6 * math.exp(0.4))


def test_nothing_winds_up_at_the_ceiling() -> None:
    state, dear = ticks(4.0, count=1_000)
    np.testing.assert_allclose(dear, OF.ceiling)
    assert ticks(0.4, state)[1][0, 0] < 8e6


def test_nothing_winds_up_at_the_floor() -> None:
    state, cheap = ticks(0.0, count=1_000)
    np.testing.assert_allclose(cheap, OF.floor)
    assert ticks(0.6, state)[1][0, 0] > 1e6


def test_without_a_proportional_part_it_is_cumulative_excess_load() -> None:
    integral = ProportionalIntegral(target=0.7, kp=0.0, ki_per_s=1 / 60)
    excess = ExcessLoad(target=0.7, k_s=60.0)
    one, other = (each.resume(PriceBook.empty(), OF) for each in (integral, excess))
    for load in (0.7, 3.0, 1.0, 0.2, 8.0, 0.0, 0.9):
        one, by_integral = integral.step(one, snapshot(load, OF, dt_s=7.0))
        other, by_excess = excess.step(other, snapshot(load, OF, dt_s=7.0))
        np.testing.assert_allclose(by_integral.rates, by_excess.rates)


@pytest.mark.parametrize(
    "told",
    [
        {"kp": -0.1},
        {"kp": math.inf},
        {"ki_per_s": 0.0},
        {"ki_per_s": math.inf},
        {"target": 0.0},
        {"target": 8.0},
    ],
)
def test_a_controller_that_makes_no_sense_is_refused(told: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is finite|target lies"):
        ProportionalIntegral(**told)


def test_one_long_tick_and_ten_short_ones_agree() -> None:
    start, _ = ticks(0.5)
    once = PI.step(start, snapshot(1.2, OF, dt_s=3.0))[1].rates
    state = start
    for _ in range(10):
        state, tenth = PI.step(state, snapshot(1.2, OF, dt_s=0.3))
    np.testing.assert_allclose(tenth.rates, once)
