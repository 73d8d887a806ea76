from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pricing.book import FloatArray, PriceBook
from pricing.classes import Fleet, infer_classes
from pricing.controllers.shadow import ShadowPrice, ShadowState
from pricing.fluid import FluidMarket
from pricing.snapshot import Bands, MarketSnapshot
from tests.unit.pricing.markets import TOKENS, bands, snapshot

OF = bands(TOKENS, TOKENS)  # floor 1, list 2, ceiling 8 USD in; twice that out


def settled(
    controller: ShadowPrice, at: MarketSnapshot, ticks: int = 200
) -> tuple[ShadowState, FloatArray]:
    state = controller.resume(PriceBook.empty(), at.bands)
    for _ in range(ticks):
        state, proposed = controller.step(state, at)
    return state, proposed.rates


def wanting(*callers: tuple[float, float], slots: float = 5.0) -> FluidMarket:
    """Callers (calls per second, value in micro-dollars) of one slot-second, for both endpoints."""
    wanted, value = np.array(callers).T
    matrix = np.repeat(value[:, np.newaxis], 2, axis=1)
    cost = float(OF.floor[:, 0].sum())
    return FluidMarket.dense(wanted, np.full(2, slots), matrix, np.ones(matrix.shape), cost)


def test_the_price_is_marginal_cost_plus_what_a_slot_is_worth() -> None:
    # 8 slots are sold (the target is 0.8 of 10); the callers at 9 million are the last to fit.
    market = wanting((4.0, 12e6), (6.0, 9e6), (9.0, 5e6))
    _, rates = settled(ShadowPrice(target=0.8), replace(snapshot(1.0, OF), fluid=market))
    np.testing.assert_allclose(rates.sum(axis=0), 9e6, rtol=1e-6)


def test_where_there_is_room_the_price_falls_to_marginal_cost() -> None:
    market = wanting((4.0, 12e6))
    _, rates = settled(ShadowPrice(), replace(snapshot(1.0, OF), fluid=market))
    np.testing.assert_allclose(rates, OF.floor, rtol=1e-6)


def test_work_by_the_token_turns_a_slots_worth_into_rates() -> None:
    work = np.array([[0.5, 0.5], [1.5, 1.5], [0.0, 0.0]])
    market = replace(wanting((10.0, 5e6)), rate_work=work)
    _, rates = settled(ShadowPrice(), replace(snapshot(1.0, OF), fluid=market))
    # A slot-second is worth 2 million over its cost: of 8 million by the rates, as their work goes.
    np.testing.assert_allclose(rates[1, 0] / rates[0, 0], 2.0)
    assert rates[:, 0].sum() == pytest.approx(3e6 + 2.0 * 2e6, rel=1e-6)


def test_the_goal_is_solved_for_only_now_and_then() -> None:
    controller = ShadowPrice(solve_every_s=5.0)
    first = replace(snapshot(1.0, OF), fluid=wanting((10.0, 6e6)))
    state, _ = controller.step(controller.resume(PriceBook.empty(), OF), first)
    later = replace(first, fluid=wanting((10.0, 12e6)))
    goals = []
    for _ in range(6):
        state, _ = controller.step(state, later)
        goals.append(state.goal[0])
    assert goals[:4] == [state_goal(first)] * 4
    assert goals[5] > goals[0]


@pytest.mark.parametrize(
    ("delay_ticks", "dt_s", "ticks"),
    [
        (None, 1.0, 5),
        ([80.0, 200.0], 1.0, 8),  # a tenth of the soonest answer
        ([80.0, 200.0], 2.0, 8),
        ([10.0, 200.0], 1.0, 5),
        ([math.nan, 200.0], 1.0, 5),
    ],
)
def test_where_prices_are_answered_late_a_goal_stands_longer(
    delay_ticks: list[float] | None, dt_s: float, ticks: int
) -> None:
    controller = ShadowPrice(solve_every_s=5.0)
    delay = None if delay_ticks is None else np.array(delay_ticks)
    first = replace(snapshot(1.0, OF, dt_s), fluid=wanting((10.0, 6e6)), delay_ticks=delay)
    state, _ = controller.step(controller.resume(PriceBook.empty(), OF), first)
    later, goal, stood = replace(first, fluid=wanting((10.0, 12e6))), state.goal[0], 0
    while state.goal[0] == goal:
        state, _ = controller.step(state, later)
        stood += 1
    assert stood == ticks


def test_a_goal_is_solved_for_at_once_where_an_endpoint_has_come() -> None:
    controller, one = ShadowPrice(solve_every_s=1e6), bands(TOKENS)
    alone = FluidMarket.dense(
        np.array([9.0]), np.array([5.0]), np.array([[9e6]]), np.ones((1, 1)), 3e6
    )
    state = controller.resume(PriceBook.empty(), one)
    state, _ = controller.step(state, replace(snapshot(1.0, one), fluid=alone))
    state, _ = controller.step(state, replace(snapshot(1.0, OF), fluid=wanting((10.0, 6e6))))
    assert np.isfinite(state.goal).tolist() == [True, True]


def test_where_the_solver_gives_up_the_old_goal_stands_until_it_is_solved_again() -> None:
    controller = ShadowPrice(solve_every_s=5.0)
    sound = replace(snapshot(1.0, OF, 5.0), fluid=wanting((10.0, 6e6)))
    state, _ = controller.step(controller.resume(PriceBook.empty(), OF), sound)
    goal = state.goal.tolist()
    unsolvable = replace(sound, fluid=wanting((1e30, 12e6), slots=1e30))  # no end for it
    state, _ = controller.step(state, unsolvable)
    assert state.goal.tolist() == goal
    dearer = replace(sound, dt_s=1.0, fluid=wanting((10.0, 12e6)))
    for _ in range(4):
        state, _ = controller.step(state, dearer)
        assert state.goal.tolist() == goal, "and is tried no more often than ever"
    state, _ = controller.step(state, dearer)
    assert (state.goal > goal).all()


def test_a_market_of_nobody_with_classes_and_delays_is_no_special_case() -> None:
    none = bands()
    nobody = FluidMarket.dense(*(np.zeros(0), np.zeros(0)), *(np.zeros((0, 0)),) * 2, np.zeros(0))
    moment = replace(snapshot(1.0, none), fluid=nobody, delay_ticks=np.zeros(0))
    _, rates = settled(ShadowPrice(), moment, ticks=3)
    assert rates.shape == (3, 0)


def state_goal(at: MarketSnapshot) -> float:
    controller = ShadowPrice()
    return float(controller.step(controller.resume(PriceBook.empty(), OF), at)[0].goal[0])


def test_an_endpoint_alone_is_priced_so_that_demand_fills_the_target() -> None:
    controller = ShadowPrice(target=0.8, elasticity=2.0)
    state, price = controller.resume(PriceBook.empty(), OF), 1.0
    for _ in range(100):
        load = 3.0 * price**-2.0
        state, proposed = controller.step(state, snapshot(load, OF))
        price = proposed.rates[0, 0] / 2e6
    assert price == pytest.approx(math.sqrt(3.0 / 0.8))


def test_a_price_goes_a_share_of_the_excess_and_the_gain_guard_makes_it_less() -> None:
    controller = ShadowPrice(target=0.8, speed=0.5, elasticity=1.0)
    start, _ = controller.step(controller.resume(PriceBook.empty(), OF), snapshot(0.8, OF))
    rush = snapshot(1.6, OF)
    _, freely = controller.step(start, rush)
    assert freely.rates[0, 0] == pytest.approx(2e6 * math.exp(0.5))
    late = replace(rush, delay_ticks=np.array([0.0, 5.0]), elasticity=np.ones(2))
    _, guarded = controller.step(start, late)
    assert guarded.rates[0, 0] == pytest.approx(2e6 * math.exp(0.5))
    share = math.sin(math.pi / 22)  # half of 2 sin(pi / (2 (2 * 5 + 1)))
    assert guarded.rates[0, 1] == pytest.approx(2e6 * math.exp(share))


@pytest.mark.parametrize(
    ("elasticity", "counts_as", "load"),
    [(2.0, 2.0, 1.6), (5.0, 5.0, 8.0), (math.nan, 1.5, 1.6), (0.05, 0.2, 0.9), (60.0, 20.0, 0.82)],
)
def test_the_elasticity_that_is_measured_says_how_far_to_go(
    elasticity: float, counts_as: float, load: float
) -> None:
    controller = ShadowPrice(target=0.8, speed=0.5, elasticity=1.5)
    start, _ = controller.step(controller.resume(PriceBook.empty(), OF), snapshot(0.8, OF))
    seen = replace(snapshot(load, OF), elasticity=np.full(2, elasticity))
    moved = math.log(controller.step(start, seen)[1].rates[0, 0] / 2e6)
    distance = math.log(load / 0.8) / counts_as
    way = min(math.expm1(counts_as * distance) / counts_as, 2.0 * distance)
    assert moved == pytest.approx(0.5 * way)
    late = replace(seen, delay_ticks=np.full(2, 5.0), elasticity=np.full(2, counts_as))
    moved = math.log(controller.step(start, late)[1].rates[0, 0] / 2e6)
    assert moved == pytest.approx(math.sin(math.pi / 22) * way), "the gain is that of one by one"


def test_the_mean_of_a_load_that_swings_stands_at_its_target() -> None:
    controller = ShadowPrice(target=0.8, speed=0.02, elasticity=1.0)
    state, ln_price, loads = controller.resume(PriceBook.empty(), OF), 0.0, []
    for tick in range(2_000):
        load = 0.8 * (1.5 if tick % 2 else 0.5) * math.exp(-ln_price)
        state, proposed = controller.step(state, snapshot(load, OF))
        ln_price = math.log(proposed.rates[0, 0] / 2e6)
        loads.append(load)
    assert np.mean(loads[-1_000:]) == pytest.approx(0.8, rel=0.01)


def test_a_goal_that_stands_for_a_while_counts_as_delay() -> None:
    fleet = Fleet(np.zeros(2, dtype=int), np.arange(2), np.full(2, 10.0))
    fluid = infer_classes(fleet, OF, np.full(2, 1.6), np.zeros(2), np.ones(2))
    moment = replace(
        snapshot(1.6, OF), fluid=fluid, delay_ticks=np.full(2, 3.0), elasticity=np.ones(2)
    )

    def moved(solve_every_s: float) -> float:
        controller = ShadowPrice(target=0.8, speed=1.0, solve_every_s=solve_every_s)
        start, _ = controller.step(controller.resume(PriceBook.empty(), OF), snapshot(0.8, OF))
        return math.log(controller.step(start, moment)[1].rates[0, 0] / 2e6)

    # With 9 s between solutions 4 more ticks: half of 2 sin(pi / (2 (2 tau + 1))) for 3 and for 7;
    # with 21 s 10 more.
    shares = [math.sin(math.pi / (2 * (2 * ticks + 1))) for ticks in (3, 3, 7, 13)]
    told = [moved(each) / moved(1.0) * shares[0] for each in (0.0, 1.0, 9.0, 21.0)]
    assert told == pytest.approx(shares, rel=1e-3)
    moment = replace(moment, dt_s=2.0)
    assert moved(18.0) / moved(2.0) == pytest.approx(shares[2] / shares[0], rel=1e-3)
    moment = replace(moment, dt_s=0.0)
    assert moved(9.0) / moved(0.0) == pytest.approx(1.0), "where no time passes no goal gets old"


def test_classes_inferred_from_load_lead_to_the_price_that_fills_the_target() -> None:
    elasticity, scale = np.array([2.0, 0.7]), np.array([3.0, 1.6])
    fleet = Fleet(np.arange(2), np.arange(2), np.full(2, 4.0))
    controller, book = ShadowPrice(target=0.8), PriceBook.from_matrix(1, OF.listed)
    state = controller.resume(book, OF)
    for version in range(2, 120):
        scarcity = np.log(book.matrix()[0] / 2e6)
        load = scale * np.exp(-elasticity * scarcity)
        fluid = infer_classes(fleet, OF, load, scarcity, elasticity)
        moment = MarketSnapshot(0.0, 1.0, load, OF, book, None, elasticity, fluid)
        state, proposed = controller.step(state, moment)
        book = PriceBook.from_matrix(version, np.rint(proposed.rates).astype(np.int64))
    np.testing.assert_allclose(load, 0.8, rtol=0.06)


def test_endpoints_of_one_family_share_their_demand() -> None:
    """The one is flooded, the other idle: callers who take them for the same pay one price."""
    fleet = Fleet(np.zeros(2, dtype=int), np.arange(2), np.full(2, 10.0))
    market = infer_classes(fleet, OF, np.array([1.5, 0.0]), np.zeros(2), np.ones(2))
    _, rates = settled(ShadowPrice(), replace(snapshot(1.0, OF), fluid=market))
    np.testing.assert_allclose(rates[:, 0], rates[:, 1], rtol=1e-6)
    assert rates[0, 0] < 2e6 * 1.05  # 15 slots of work for 16 to be sold


def test_a_fleet_without_any_load_is_priced_at_marginal_cost() -> None:
    fleet = Fleet(np.zeros(2, dtype=int), np.arange(2), np.full(2, 10.0))
    market = infer_classes(fleet, OF, np.zeros(2), np.zeros(2), np.ones(2))
    _, rates = settled(ShadowPrice(), replace(snapshot(0.0, OF), fluid=market))
    np.testing.assert_allclose(rates, OF.floor, rtol=1e-6)


def test_a_family_of_which_nobody_is_left_wants_nothing() -> None:
    fleet = Fleet(np.array([3, 1]), np.arange(2), np.full(2, 10.0))
    market = infer_classes(fleet, OF, np.ones(2), np.zeros(2), np.ones(2))
    by_family = market.wanted.reshape(4, -1).sum(axis=1)
    assert (by_family > 0.0).tolist() == [False, True, False, True]


def test_numbers_not_in_use_have_no_part_in_the_market() -> None:
    gap = bands((0,) * 9, TOKENS)
    fleet = Fleet(np.array([-1, 0]), np.zeros(2, dtype=int), np.array([10.0]))
    market = infer_classes(fleet, gap, np.array([np.nan, 1.0]), np.array([np.nan, 0.0]), np.ones(2))
    assert set(market.arc_endpoint.tolist()) == {1}
    assert market.wanted.sum() > 0.0


def test_the_bands_of_an_endpoint_hold_whatever_a_slot_is_worth() -> None:
    narrow: Bands = bands((1, 2, 3, 0, 0, 0, 0, 0, 0), TOKENS)
    market = wanting((50.0, 1e12))
    _, rates = settled(ShadowPrice(), replace(snapshot(1.0, narrow), fluid=market))
    np.testing.assert_allclose(rates, narrow.ceiling)
