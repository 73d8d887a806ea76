"""Swings of prices are told from the small steps that single calls make."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulations.files.load import load
from simulations.measured.turns import SWING, Turns
from simulations.report.loops import delay_ticks


def swings(*prices: list[float]) -> list[int]:
    turns = Turns(len(prices))
    for tick in zip(*prices, strict=True):
        turns.add(np.log(np.array(tick)))
    return turns.swings.tolist()


def test_a_price_swings_where_it_turns_by_more_than_single_calls_make_it() -> None:
    large, small = 1.01 + SWING, 0.99 + SWING
    assert swings([1.0, large, 1.0, large], [1.0, small, 1.0, small]) == [2, 0]


def test_a_turn_in_small_steps_is_a_swing_and_the_steps_back_on_its_way_are_none() -> None:
    up = [1.0, 1.1, 1.09, 1.2, 1.19, 1.3]
    assert swings([*up, *up[::-1]]) == [1]
    assert swings(up, up[::-1]) == [0, 0], "a price that only rises or falls does not swing"


def test_a_price_that_is_not_there_for_a_while_goes_on_from_where_it_was() -> None:
    gone = math.nan
    assert swings([gone, 1.0, 1.2, gone, 1.3, gone, 1.1]) == [1]


def test_a_slow_price_turns_as_often_as_its_curve_does() -> None:
    day = np.exp(np.sin(np.linspace(0.0, 4.0 * math.pi, 2_000)))
    chance = np.random.default_rng(3).normal(0.0, SWING / 20.0, day.size)
    assert swings((day * np.exp(chance)).tolist()) == [4]


@pytest.mark.parametrize(("tick_s", "ticks"), [(10.0, 18), (60.0, 4)])
def test_reports_tell_the_delay_that_the_gain_guard_goes_by(tick_s: float, ticks: int) -> None:
    """The usual call of `day_night` takes 330 s on a full server: half of it, and a tick."""
    assert delay_ticks(load("day_night").build([("prices.tick_s", tick_s)])) == ticks
