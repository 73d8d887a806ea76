from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pricing.advice import PERIODS_MIN, Advice, Reason, Sales, advise
from pricing.book import FloatArray

HOUR_S = 3600.0


def sold(
    elasticity: float, *, hours: int = 168, most: float = 1e9, level: float = 500.0, **more: Any
) -> Sales:
    """A week of prices around 1,000 nano-dollars, and demand with a day and a night."""
    rng = np.random.default_rng(11)
    price = 1_000.0 * np.exp(np.cumsum(rng.normal(0, 0.1, hours)) * 0.3)
    day = 1.0 + 0.5 * np.sin(2 * np.pi * np.arange(hours) / 24.0)
    mean = level * day * (price / 1_000.0) ** -elasticity
    calls = np.minimum(rng.poisson(mean), most).astype(float)
    return Sales(0.0, HOUR_S, price, calls, most, **more)


def ranges(advice: Advice) -> tuple[float, float, float]:
    assert advice.elasticity is not None
    assert advice.listed_nanos is not None
    assert advice.gain is not None
    return advice.elasticity.best, advice.listed_nanos.best, advice.gain.best


@pytest.mark.parametrize("elasticity", [0.4, 1.0, 2.5])
def test_the_elasticity_lies_in_its_interval(elasticity: float) -> None:
    found = advise(sold(elasticity)).elasticity
    assert found is not None
    assert found.low - 0.1 <= elasticity <= found.high + 0.1
    assert found.low < found.best < found.high
    assert found.high - found.low < 1.0


def test_calls_that_hardly_mind_the_price_could_have_been_dearer() -> None:
    advice = advise(sold(0.3))
    _, listed, gain = ranges(advice)
    assert advice.reason is Reason.INELASTIC
    assert listed > 1_300.0
    assert gain > 0.1
    assert "dearer" in advice.sentence


def test_calls_that_mind_it_much_could_have_been_cheaper() -> None:
    advice = advise(sold(2.5))
    _, listed, gain = ranges(advice)
    assert advice.reason is Reason.ELASTIC
    assert listed < 900.0
    assert gain > 0.1


def test_a_cost_keeps_the_advice_above_it() -> None:
    _, listed, _ = ranges(advise(sold(2.5, cost_nanos=600.0)))
    assert listed == pytest.approx(600.0 * 2.5 / 1.5, rel=0.25)  # the markup rule: e / (e - 1)


def test_sold_out_hours_could_have_been_dearer() -> None:
    advice = advise(sold(1.2, most=650.0))
    assert advice.reason is Reason.SOLD_OUT
    assert advice.ceiling_nanos is not None
    assert advice.floor_nanos is not None
    assert advice.ceiling_nanos > advice.floor_nanos


def test_the_band_holds_the_list_price_and_is_in_order() -> None:
    for elasticity in (0.4, 1.0, 1.6):
        advice = advise(sold(elasticity, most=600.0))
        assert advice.listed_nanos is not None
        assert advice.floor_nanos is not None
        assert advice.ceiling_nanos is not None
        assert 0 < advice.floor_nanos <= advice.listed_nanos.best <= advice.ceiling_nanos
        assert advice.listed_nanos.low <= advice.listed_nanos.best <= advice.listed_nanos.high


def test_a_price_that_never_moved_shows_nothing() -> None:
    sales = sold(1.0)
    still = Sales(0.0, HOUR_S, np.full(168, 1_000.0), sales.calls, 1e9)
    advice = advise(still)
    assert advice.reason is Reason.PRICE_NEVER_MOVED
    assert advice.listed_nanos is None


def test_of_few_calls_nothing_is_said() -> None:
    advice = advise(sold(1.0, hours=PERIODS_MIN - 1))
    assert advice == Advice(Reason.TOO_FEW_CALLS, PERIODS_MIN - 1)
    none = Sales(0.0, HOUR_S, np.full(0, 1.0), np.zeros(0), 1.0)
    assert advise(none).reason is Reason.TOO_FEW_CALLS


def test_hours_without_a_price_are_left_out() -> None:
    sales = sold(0.5)
    price: FloatArray = sales.price_nanos.copy()
    price[::7] = np.nan
    found = advise(Sales(0.0, HOUR_S, price, sales.calls, 1e9)).elasticity
    assert found is not None
    assert found.best == pytest.approx(0.5, abs=0.3)


def test_a_price_that_follows_the_load_is_not_taken_for_demand_that_likes_it_dear() -> None:
    """Load raises the price, so dear hours are busy hours; demand itself has elasticity 1.5."""
    rng = np.random.default_rng(3)
    price, shock, prices, calls = 0.0, 0.0, [], []
    for _ in range(600):
        shock = 0.8 * shock + rng.normal(0.0, 0.3)
        demand = np.log(400.0) + shock - 1.5 * price
        prices.append(1_000.0 * np.exp(price))
        calls.append(float(rng.poisson(np.exp(demand))))
        price += 0.2 * (np.log(calls[-1] + 0.5) - np.log(400.0))
    found = advise(Sales(0.0, 900.0, np.array(prices), np.array(calls), 1e9)).elasticity
    assert found is not None
    assert 0.8 < found.best < 2.0


def test_advice_is_the_same_for_the_same_sales() -> None:
    assert advise(sold(0.8)) == advise(sold(0.8))


def test_arrays_that_do_not_fit_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="for each period"):
        advise(Sales(0.0, HOUR_S, np.ones(3), np.ones(4), 1.0))
