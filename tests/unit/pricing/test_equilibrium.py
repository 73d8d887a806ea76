"""The optimum of a market: duality, slackness, and cases that can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.equilibrium import WelfareOptimum, revenue_optimum, welfare_optimum
from pricing.fluid import FluidMalformed, FluidMarket
from tests.unit.pricing.fluids import markets, random_market


def assert_equilibrium(market: FluidMarket, best: WelfareOptimum) -> None:
    """Feasible, worth what its duals bound, and slack wherever a dual is not."""
    classes, slots = market.wanted.size, market.capacity.size
    sold = np.bincount(market.arc_class, best.flow, classes)
    used = np.bincount(market.arc_resource, market.work * best.flow, slots)
    margin = market.value - market.cost
    scale = 1.0 + np.abs(margin).max(initial=0.0)
    assert (best.flow >= -1e-9).all()
    assert (sold <= market.wanted + 1e-6).all()
    assert (used <= market.capacity + 1e-6).all()
    bound = market.wanted @ best.class_surplus + market.capacity @ best.congestion
    assert best.welfare == pytest.approx(bound, rel=1e-7, abs=1e-7)  # strong duality
    assert best.welfare == pytest.approx(margin @ best.flow, rel=1e-7, abs=1e-7)
    gain = market.value - best.prices(market) - best.class_surplus[market.arc_class]
    assert (gain <= 1e-6 * scale).all()  # nobody would rather go elsewhere
    assert (np.abs(gain[best.flow > 1e-6]) <= 1e-6 * scale).all()
    assert (np.abs(sold - market.wanted)[best.class_surplus > 1e-6 * scale] <= 1e-6).all()
    assert (np.abs(used - market.capacity)[best.congestion > 1e-6 * scale] <= 1e-6).all()


@given(markets)
@settings(max_examples=40)
def test_strong_duality_and_complementary_slackness_hold(market: FluidMarket) -> None:
    assert_equilibrium(market, welfare_optimum(market))


@pytest.mark.parametrize("seed", range(3))
def test_a_large_market_is_solved_exactly_cold_and_from_a_similar_one(seed: int) -> None:
    market = random_market(seed, 50, 90)
    rng = np.random.default_rng(seed)
    moved = replace(market, wanted=market.wanted * np.exp(rng.normal(0, 0.2, market.wanted.size)))
    before = welfare_optimum(market)
    cold, warm = welfare_optimum(moved), welfare_optimum(moved, before)
    for best in (cold, warm):
        assert_equilibrium(moved, best)
    assert warm.welfare == pytest.approx(cold.welfare, rel=1e-9)


def test_a_start_from_quite_another_market_does_no_harm() -> None:
    market, other = random_market(1, 50, 90), random_market(2, 40, 60)
    cold = welfare_optimum(market)
    assert welfare_optimum(market, welfare_optimum(other)).welfare == pytest.approx(cold.welfare)


def test_equal_endpoints_are_solved_as_well() -> None:
    value = np.repeat(np.linspace(1.0, 9.0, 40)[:, np.newaxis], 60, axis=1)
    market = FluidMarket.dense(np.full(40, 3.0), np.ones(60), value, np.ones(value.shape))
    best = welfare_optimum(market)
    assert_equilibrium(market, best)
    assert np.ptp(best.congestion) == pytest.approx(0.0, abs=1e-9)


def test_the_price_of_a_scarce_slot_is_the_value_of_the_caller_who_is_left_out() -> None:
    value = np.array([[10.0], [6.0], [3.0]])
    market = FluidMarket.dense(np.full(3, 4.0), np.array([6.0]), value, np.ones((3, 1)), 1.0)
    best = welfare_optimum(market)
    assert best.congestion[0] == pytest.approx(6.0 - 1.0)
    assert best.welfare == pytest.approx(4 * 9.0 + 2 * 5.0)
    np.testing.assert_allclose(best.prices(market), 6.0)


def test_where_there_is_room_for_all_the_price_is_marginal_cost() -> None:
    market = FluidMarket.dense(
        np.ones(1), np.array([9.0]), np.array([[5.0]]), np.array([[2.0]]), 0.5
    )
    assert welfare_optimum(market).prices(market).tolist() == [1.0]


def test_nobody_is_served_below_cost() -> None:
    market = FluidMarket.dense(np.ones(1), np.ones(1), np.array([[5.0]]), np.ones((1, 1)), 7.0)
    best = welfare_optimum(market)
    assert best.welfare == 0.0
    assert best.flow.tolist() == [0.0]


def test_endpoints_on_one_resource_share_its_slots() -> None:
    market = FluidMarket(
        wanted=np.array([5.0, 5.0]),
        capacity=np.array([4.0]),
        resource=np.array([0, 0]),
        arc_class=np.array([0, 1]),
        arc_endpoint=np.array([0, 1]),
        value=np.array([3.0, 2.0]),
        cost=np.zeros(2),
        work=np.ones(2),
    )
    best = welfare_optimum(market)
    np.testing.assert_allclose(best.flow, [4.0, 0.0])
    assert 2.0 <= best.congestion[0] <= 3.0


def test_a_market_without_callers_or_endpoints_is_worth_nothing() -> None:
    for shape in ((0, 3), (3, 0)):
        market = FluidMarket.dense(
            np.ones(shape[0]), np.ones(shape[1]), np.ones(shape), np.ones(shape)
        )
        assert welfare_optimum(market).welfare == 0.0


def uniform(capacity: float, classes: int = 50) -> FluidMarket:
    """Callers who value a call at anything between 0 and 1 alike, one call a second in all."""
    value = (np.arange(classes)[:, np.newaxis] + 1.0) / classes
    return FluidMarket.dense(
        np.full(classes, 1.0 / classes), np.array([capacity]), value, np.ones(value.shape)
    )


def test_a_monopolist_with_room_asks_half_of_the_highest_value() -> None:
    market = uniform(capacity=9.0)
    best = revenue_optimum(market, np.zeros(50, dtype=int), prices_max=50)
    assert best.revenue == pytest.approx(0.25, abs=0.011)
    assert best.menu[0, best.price_share[0].argmax()] == pytest.approx(0.5, abs=0.02)


def test_a_monopolist_short_of_room_asks_what_fills_it() -> None:
    best = revenue_optimum(uniform(capacity=0.26), np.zeros(50, dtype=int), prices_max=50)
    assert best.revenue == pytest.approx(0.26 * 0.76)


def test_a_menu_cut_to_quantiles_falls_little_short() -> None:
    whole = revenue_optimum(uniform(0.4), np.zeros(50, dtype=int), prices_max=50).revenue
    cut = revenue_optimum(uniform(0.4), np.zeros(50, dtype=int), prices_max=15).revenue
    assert 0.95 * whole < cut <= whole + 1e-9


def test_who_can_be_told_apart_pays_its_whole_value() -> None:
    market = random_market(4, 8, 5)
    apart = revenue_optimum(market, np.arange(8), prices_max=50)
    assert apart.revenue <= welfare_optimum(market).welfare + 1e-7
    market = replace(market, value=market.value[market.arc_class] * 0 + 5.0)
    apart = revenue_optimum(market, np.arange(8))
    assert apart.revenue == pytest.approx(welfare_optimum(market).welfare)


@given(markets, st.integers(1, 4))
@settings(max_examples=20)
def test_no_price_earns_more_than_the_market_is_worth(market: FluidMarket, segments: int) -> None:
    segment = np.arange(market.wanted.size) % segments
    best = revenue_optimum(market, segment)
    assert best.revenue <= welfare_optimum(market).welfare + 1e-6
    assert (best.price_share.sum(axis=1) <= 1 + 1e-9).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wanted", np.array([-1.0])),
        ("capacity", np.array([np.nan])),
        ("arc_class", np.array([3])),
        ("resource", np.array([-1])),
        ("value", np.array([1.0, 2.0])),
        ("value", np.array([np.inf])),
        ("rate_work", np.ones((2, 1))),
    ],
)
def test_a_market_that_does_not_fit_together_is_refused(name: str, value: np.ndarray) -> None:
    one = np.ones(1)
    market = FluidMarket.dense(one, one, np.ones((1, 1)), np.ones((1, 1)))
    with pytest.raises(FluidMalformed):
        replace(market, **{name: value})
