from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pricing.book import FloatArray, PriceBook
from pricing.controllers import Controller
from pricing.controllers.excess import ExcessLoad, ExcessState
from pricing.controllers.posted import Posted
from pricing.snapshot import Bands
from tests.unit.pricing.markets import (
    BY_CALL,
    TOKENS,
    bands,
    markets,
    rows,
    snapshot,
)

EXCESS: Controller[ExcessState] = ExcessLoad(target=0.5, k_s=10.0)
loads = st.floats(0.0, 8.0)


def started(of: Bands, controller: Controller[ExcessState] = EXCESS) -> ExcessState:
    """The state after everybody's first tick, at list price."""
    return controller.step(controller.resume(PriceBook.empty(), of), snapshot(9.0, of))[0]


def ticks(
    load: float, of: Bands, state: ExcessState, count: int = 1, dt_s: float = 1.0
) -> tuple[ExcessState, FloatArray]:
    for _ in range(count):
        state, proposed = EXCESS.step(state, snapshot(load, of, dt_s))
    return state, proposed.rates


def test_the_posted_price_is_the_list_price_under_any_load() -> None:
    of = bands(TOKENS, BY_CALL)
    posted: Controller[None] = Posted()
    _, proposed = posted.step(None, snapshot(5.0, of))
    np.testing.assert_array_equal(proposed.rates, of.listed)


def test_a_newcomer_starts_at_its_list_price_whatever_the_load() -> None:
    of = bands(TOKENS, BY_CALL)
    _, proposed = EXCESS.step(EXCESS.resume(PriceBook.empty(), of), snapshot(8.0, of))
    np.testing.assert_array_equal(proposed.rates, of.listed)


def test_ten_load_seconds_above_target_multiply_the_price_by_e() -> None:
    of = bands(TOKENS)
    _, rates = ticks(1.5, of, started(of), count=10)  # (1.5 - 0.5) * 10 s = K
    assert rates[0, 0] == pytest.approx(2_000_000 * math.e)
    assert rates[1, 0] == pytest.approx(4_000_000 * math.e)
    assert rates[2, 0] == 0.0


def test_the_price_is_that_of_the_formula_from_the_floor() -> None:
    of, k, e = bands(TOKENS), 10.0, 10.0 * math.log(2)  # list is twice the floor
    state = started(of)
    for load in (0.9, 3.0, 0.0, 0.2, 8.0, 0.1):
        e = min(max(e + (load - 0.5) * 1.0, 0.0), k * math.log(8))
        state, rates = ticks(load, of, state)
        assert rates[0, 0] == pytest.approx(1_000_000 * math.exp(e / k))


def test_load_at_target_moves_nothing() -> None:
    of = bands(TOKENS)
    _, rates = ticks(0.5, of, started(of), count=50)
    np.testing.assert_allclose(rates, of.listed)


def test_low_load_brings_the_floor_and_overload_the_ceiling() -> None:
    of = bands(TOKENS, BY_CALL)
    np.testing.assert_allclose(ticks(0.0, of, started(of), count=100)[1], of.floor)
    np.testing.assert_allclose(ticks(1.2, of, started(of), count=100)[1], of.ceiling)


def test_a_price_rises_under_load_and_falls_after_it() -> None:
    of = bands(TOKENS)
    state, calm = ticks(0.5, of, started(of))
    state, busy = ticks(1.0, of, state, count=5)
    _, after = ticks(0.1, of, state, count=5)
    assert calm[0, 0] < busy[0, 0]
    assert after[0, 0] < busy[0, 0]


def test_nothing_winds_up_however_long_a_bound_was_held() -> None:
    of = bands(TOKENS)
    brief, _ = ticks(2.0, of, started(of), count=20)
    long, _ = ticks(2.0, of, started(of), count=2_000)
    np.testing.assert_allclose(ticks(0.0, of, brief)[1], ticks(0.0, of, long)[1])
    assert (ticks(0.0, of, long)[1] < of.ceiling)[0, 0]


def test_rates_with_unequal_bands_move_in_step_until_each_meets_its_own() -> None:
    of = bands((1_000, 2_000, 3_000, 1_000, 2_000, 20_000, 0, 0, 0))
    _, rates = ticks(1.5, of, started(of), count=2)
    assert rates[0, 0] == pytest.approx(rates[1, 0])
    _, rates = ticks(1.5, of, started(of), count=15)
    assert rates[0, 0] == 3_000
    assert rates[1, 0] == pytest.approx(2_000 * math.exp(1.5))


def test_load_beyond_the_cap_counts_as_the_cap() -> None:
    of = bands(TOKENS)
    capped = ExcessLoad(target=0.5, k_s=100.0, load_cap=4.0)
    state = started(of, capped)
    at_cap = capped.step(state, snapshot(4.0, of))[1].rates
    np.testing.assert_array_equal(capped.step(state, snapshot(1e9, of))[1].rates, at_cap)


@pytest.mark.parametrize("load", [math.nan, math.inf, -math.inf])
def test_a_load_that_is_not_finite_moves_nothing_and_does_not_stick(load: float) -> None:
    of = bands(TOKENS)
    state, rates = ticks(load, of, started(of))
    np.testing.assert_allclose(rates, of.listed)
    assert ticks(1.0, of, state)[1][0, 0] > 2_000_000


def test_endpoints_enter_and_leave_without_disturbing_the_others() -> None:
    one, two, gap = bands(TOKENS), bands(TOKENS, BY_CALL), bands((0,) * 9, BY_CALL)
    state, _ = ticks(1.0, one, started(one), count=3)
    state, rates = ticks(1.0, two, state)
    assert rates[0, 0] == pytest.approx(2_000_000 * math.exp(0.2))
    assert rates[2, 1] == 1_000_000
    state, rates = ticks(1.0, gap, state)
    assert rates[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert rates[2, 1] == pytest.approx(1_000_000 * math.exp(0.05))
    _, rates = ticks(1.0, two, state)
    assert rates[0, 0] == 2_000_000  # back again, a newcomer
    state, rates = ticks(1.0, one, state)
    assert rates.shape == (3, 1)


def test_a_new_list_price_keeps_the_scarcity_and_a_new_ceiling_cuts_it() -> None:
    of = bands(TOKENS)
    state, rates = ticks(1.0, of, started(of), count=10)
    factor = rates[0, 0] / 2_000_000
    dearer = bands((1_000_000, 3_000_000, 12_000_000, *TOKENS[3:]))
    assert ticks(0.5, dearer, state)[1][0, 0] == pytest.approx(3_000_000 * factor)
    narrow = bands((1_000_000, 2_000_000, 2_200_000, 2_000_000, 4_000_000, 4_400_000, 0, 0, 0))
    state, rates = ticks(0.5, narrow, state)
    assert rates[0, 0] == pytest.approx(2_200_000)
    assert ticks(0.0, narrow, state)[1][0, 0] < 2_200_000


def test_a_market_without_endpoints_is_no_special_case() -> None:
    none = bands()
    state = EXCESS.resume(PriceBook.empty(), none)
    assert ticks(1.0, none, state)[1].shape == (3, 0)


def test_a_controller_that_makes_no_sense_is_refused() -> None:
    for k_s in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="K is"):
            ExcessLoad(k_s=k_s)
    for target in (0.0, 9.0, math.nan):
        with pytest.raises(ValueError, match="target"):
            ExcessLoad(target=target, load_cap=8.0)


@given(markets, st.lists(st.tuples(loads, st.floats(0.0, 5.0)), max_size=12))
def test_prices_stay_in_band_and_a_replay_gives_the_same(
    of: Bands, script: list[tuple[float, float]]
) -> None:
    state = again = started(of)
    for load, dt_s in script:
        state, proposed = EXCESS.step(state, snapshot(load, of, dt_s))
        again, same = EXCESS.step(again, snapshot(load, of, dt_s))
        assert (of.floor <= proposed.rates).all()
        assert (proposed.rates <= of.ceiling).all()
        np.testing.assert_array_equal(proposed.rates, same.rates)


@given(markets, st.lists(st.tuples(loads, loads), min_size=1, max_size=8))
def test_more_load_never_means_a_lower_price(of: Bands, script: list[tuple[float, float]]) -> None:
    less, more = started(of), started(of)
    for pair in script:
        less, low = ticks(min(pair), of, less)
        more, high = ticks(max(pair), of, more)
        assert (low <= high * (1 + 1e-12)).all()


@given(markets, st.lists(loads, min_size=1, max_size=6))
def test_one_long_tick_and_ten_short_ones_agree(of: Bands, script: list[float]) -> None:
    long, short = started(of), started(of)
    for load in script:
        long, once = ticks(load, of, long)
        short, tenfold = ticks(load, of, short, count=10, dt_s=0.1)
        np.testing.assert_allclose(once, tenfold, rtol=1e-9)


@example((0, 0, 0, 1, 11, 11, 1, 47, 1_000_001), [0.0])  # 10.46 is 10 in the book, 44.7 is 45
@given(rows.filter(lambda row: max(row) > 10**6), st.lists(loads, max_size=6))
def test_a_new_leader_goes_on_from_the_published_book(
    row: tuple[int, ...], script: list[float]
) -> None:
    of = bands(row)
    state = started(of)
    rates = of.listed.astype(np.float64)
    for load in script:
        state, rates = ticks(load, of, state)
    book = PriceBook.from_matrix(5, np.rint(rates).astype(np.int64))
    old, new = ticks(1.0, of, state)[1], ticks(1.0, of, EXCESS.resume(book, of))[1]
    np.testing.assert_allclose(new, old, rtol=1e-3, atol=2.0)
