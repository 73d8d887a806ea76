from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pricing.book import FloatArray, PriceBook
from pricing.controllers.revenue import RevenueSearch, RevenueState
from pricing.demand import DemandState, ElasticityEstimator
from pricing.guardrails import clamp
from pricing.snapshot import Bands, MarketSnapshot

WIDE = (100_000, 200_000, 4_000_000, 0, 0, 0, 0, 0, 0)
COUNT = 40
OF = Bands.from_rows(dict.fromkeys(range(COUNT), WIDE))


def searched(
    best: float,
    noise: float,
    rounds: int,
    scale: float = 1.0,
    controller: RevenueSearch | None = None,
) -> tuple[RevenueState, FloatArray]:
    """Prices in USD per Mtok after a search where load falls as exp(-price / best), and the mean
    load: price times load is largest at `best`."""
    controller = controller or RevenueSearch()
    rng = np.random.default_rng(7)
    book = PriceBook.from_matrix(1, OF.listed)
    state = controller.resume(book, OF)
    for tick in range(rounds * 6):
        price = book.matrix()[0] / 1e6
        load = scale * np.exp(-price / best + noise * rng.normal(size=COUNT))
        moment = MarketSnapshot(20.0 * tick, 20.0, load, OF, book)
        state, proposed = controller.step(state, moment)
        book = clamp(book, proposed, OF, tick + 2)
    return state, 0.2 * np.exp(state.centre)


@pytest.mark.parametrize("best", [0.3, 0.6])
def test_the_price_that_earns_most_is_found(best: float) -> None:
    _, price = searched(best, noise=0.0, rounds=150)
    np.testing.assert_allclose(price, best, rtol=0.12)


def test_it_is_found_under_noise_but_for_what_noise_leaves_unsure() -> None:
    _, price = searched(0.5, noise=0.07, rounds=250)
    assert np.median(price) == pytest.approx(0.5, rel=0.1)
    earned = price * np.exp(-price / 0.5)
    assert np.mean(earned) > 0.96 * 0.5 * np.exp(-1.0)


def test_more_than_can_be_served_makes_it_dearer_until_it_is_not() -> None:
    _, price = searched(0.1, noise=0.0, rounds=60, scale=50.0)
    np.testing.assert_allclose(50.0 * np.exp(-price / 0.1), RevenueSearch().full, rtol=0.15)


def test_half_of_a_round_is_dearer_and_half_cheaper_than_its_centre() -> None:
    controller = RevenueSearch(half_s=10.0)
    state = controller.resume(PriceBook.empty(), OF)
    offsets = []
    for tick in range(40):
        moment = MarketSnapshot(10.0 * tick, 10.0, np.full(COUNT, 0.3), OF)
        state, _ = controller.step(state, moment)
        offsets.append(state.offset)
    pairs = np.array(offsets[3:39]).reshape(-1, 2, COUNT)  # the second halves come at even turns
    np.testing.assert_allclose(pairs[:, 0], -pairs[:, 1])
    assert (np.abs(pairs) >= controller.explore_min).all()
    signs = np.sign(pairs[:, 0])
    assert 0.3 < (signs > 0).mean() < 0.7
    assert (np.abs(signs.sum(axis=0)) < pairs.shape[0]).mean() > 0.9  # coins, not a pattern


def test_another_seed_tosses_otherwise_and_the_same_one_the_same() -> None:
    one, other, same = (
        searched(0.3, 0.0, 3, controller=RevenueSearch(seed=seed))[0].offset for seed in (1, 2, 1)
    )
    assert (one == same).all()
    assert (one != other).any()


def test_noise_alone_moves_few_and_none_in_one_direction() -> None:
    controller = RevenueSearch()
    rng = np.random.default_rng(2)
    state = controller.resume(PriceBook.empty(), OF)
    for tick in range(24):
        load = np.exp(rng.normal(-1.0, 0.5, COUNT))  # nothing but noise, for two rounds
        state, _ = controller.step(state, MarketSnapshot(10.0 * tick, 10.0, load, OF))
    assert np.mean(state.centre == 0.0) > 0.1
    assert abs(np.mean(state.centre)) < 0.05


@pytest.mark.parametrize(
    ("best", "scale", "edge"),
    [(50.0, 1.0, 20.0), (0.07, 3.0, 0.5)],
    ids=["hardly minds the price", "minds it much"],
)
def test_the_search_stays_within_the_band_with_both_of_its_sides(
    best: float, scale: float, edge: float
) -> None:
    state, _ = searched(best, noise=0.0, rounds=150, scale=scale)
    tried = state.centre + np.outer([-1.0, 1.0], np.abs(state.offset[0]))
    assert (tried <= np.log(20.0) + 1e-9).all()
    assert (tried >= np.log(0.5) - 1e-9).all()
    assert (np.abs(state.centre - np.log(edge)) < 2 * RevenueSearch().explore).all()


def test_in_a_band_too_narrow_for_both_sides_the_middle_is_the_centre() -> None:
    narrow = Bands.from_rows({0: (180_000, 200_000, 200_000, 0, 0, 0, 0, 0, 0)})
    controller = RevenueSearch(half_s=10.0)
    state = controller.resume(PriceBook.empty(), narrow)
    for tick in range(10):
        state, _ = controller.step(state, MarketSnapshot(10.0 * tick, 10.0, np.ones(1), narrow))
    assert state.centre == pytest.approx([np.log(0.9) / 2.0])


def test_a_load_without_sense_spoils_no_more_than_its_half() -> None:
    controller = RevenueSearch()
    state = controller.resume(PriceBook.empty(), OF)
    for tick in range(36):
        load = np.full(COUNT, np.nan if tick == 3 else 0.4)
        state, proposed = controller.step(state, MarketSnapshot(10.0 * tick, 10.0, load, OF))
        assert np.isfinite(proposed.rates).all()
    assert np.isfinite(state.demand.before_log_load).all()
    assert np.isfinite(replace(state).centre).all()


def alone(controller: RevenueSearch, ticks: int, load: float, dt_s: float) -> list[RevenueState]:
    """The states after each tick at one load, whatever the price."""
    state, seen = controller.resume(PriceBook.empty(), OF), []
    for tick in range(ticks):
        moment = MarketSnapshot(dt_s * tick, dt_s, np.full(COUNT, load), OF)
        state, _ = controller.step(state, moment)
        seen.append(state)
    return seen


def test_a_newcomer_has_its_list_price_for_half_a_round_and_then_explores() -> None:
    seen = alone(RevenueSearch(half_s=3.0), 4, 0.3, 1.0)
    assert [np.abs(each.offset).max() for each in seen] == [0.0, 0.0, 0.1, 0.1]


def test_exploration_shrinks_with_the_fourth_root_of_the_rounds_down_to_its_least() -> None:
    seen = alone(RevenueSearch(half_s=1.0, explore_min=0.05 + 1e-9), 34, 0.3, 1.0)
    after = {rounds: np.abs(seen[2 * rounds - 1].offset) for rounds in (1, 2, 16, 17)}
    np.testing.assert_allclose(after[1], 0.1)
    np.testing.assert_allclose(after[2], 0.1 / 2**0.25)
    np.testing.assert_allclose(after[16], 0.05, rtol=1e-6)
    np.testing.assert_allclose(after[17], 0.05, rtol=1e-6)


def test_the_coin_is_splitmix64_of_seed_turn_and_place() -> None:
    """In whole numbers of Python, of which none overflows."""

    def tossed(seed: int, turn: int, place: int) -> float:
        word = (((seed << 32) ^ turn) + place) * 0x9E3779B97F4A7C15 % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return -1.0 if (word ^ (word >> 31)) >> 63 else 1.0

    for seed in (0, 1, 2**31):
        seen = alone(RevenueSearch(half_s=1.0, seed=seed), 8, 0.3, 1.0)
        for turn in (1, 2, 4, 6, 8):
            signs = np.sign(seen[turn - 1].offset).tolist()
            assert signs == [tossed(seed, turn, place) for place in range(COUNT)]


@pytest.mark.parametrize("load", [np.nan, 0.0, 0.04], ids=["never told", "none", "too little"])
def test_an_endpoint_of_whose_demand_nothing_is_known_keeps_its_price(load: float) -> None:
    """Whom nobody asks earns no more by being dearer, though demand seems not to mind."""
    assert (alone(RevenueSearch(half_s=1.0), 40, load, 1.0)[-1].centre == 0.0).all()


@pytest.mark.parametrize("told", [True, False])
def test_demand_is_judged_by_the_price_in_force_once_it_has_settled(told: bool) -> None:
    """Whoever publishes may have set another price than was asked for."""
    controller = RevenueSearch(half_s=60.0, settle_share=0.25, max_move=0.01)
    state, rng = controller.resume(PriceBook.empty(), OF), np.random.default_rng(3)
    factor = np.ones(COUNT)
    for half in range(40):
        book = PriceBook.from_matrix(half + 1, np.rint(OF.listed * factor).astype(np.int64))
        for tick in range(4):
            load = 0.3 * factor**-2.0 if tick else np.full(COUNT, 5.0 * (half % 3))
            moment = MarketSnapshot(60.0 * half, 15.0, load, OF, book if told else None)
            state, proposed = controller.step(state, moment)
        asked = proposed.rates[0] / OF.listed[0]
        factor = np.exp(rng.choice([-0.1, 0.1], COUNT)) if told else asked
    known = ElasticityEstimator(forgetting=controller.forgetting).estimate(state.demand)
    np.testing.assert_allclose(known.mean, 2.0, rtol=0.1)


def knowing(elasticity: float, noise: float = 0.0) -> DemandState:
    """What is known of such demand after a hundred windows."""
    estimator, rng = ElasticityEstimator(forgetting=0.98), np.random.default_rng(5)
    demand = estimator.start(COUNT)
    for _ in range(100):
        log_price = rng.choice([-0.2, 0.2], COUNT)
        load = np.exp(-elasticity * log_price + noise * rng.normal(size=COUNT))
        demand = estimator.close(estimator.watch(demand, np.exp(log_price), load, 1.0))
    return replace(demand, before_log_load=np.full(COUNT, np.nan))


def moved(controller: RevenueSearch, demand: DemandState, load: float) -> FloatArray:
    """ln of the price after a round of this load over that before."""
    state = replace(controller.resume(PriceBook.empty(), OF), demand=demand)
    dt_s = controller.half_s
    for tick in range(2):
        moment = MarketSnapshot(dt_s * tick, dt_s, np.full(COUNT, load), OF)
        state = replace(controller.step(state, moment)[0], demand=demand)
    return state.centre


@pytest.mark.parametrize(
    ("elasticity", "load", "move"),
    [
        (2.0, 1.0, np.log(1.0 / 0.5) / 2.0),
        (1.0, 0.6, np.log(0.6 / 0.5)),
        (0.2, 0.55, np.log(0.55 / 0.5) / 0.5),  # an elasticity of less than a half counts as that
        (3.0, 9.0, 0.4),  # the most that it moves
        (0.5, 0.1, 0.2 * 0.5),  # nothing to fill: a fifth of what the next percent earns
        (3.0, 0.01, -0.4),
    ],
)
def test_a_round_moves_the_price_to_where_it_fills_or_a_share_of_the_way_to_where_it_earns_most(
    elasticity: float, load: float, move: float
) -> None:
    controller = RevenueSearch(half_s=1.0, full=0.5, speed=0.2, max_move=0.4)
    np.testing.assert_allclose(moved(controller, knowing(elasticity), load), move, rtol=0.04)


def test_the_less_sure_a_pull_is_the_less_is_followed_and_none_within_its_error() -> None:
    controller, demand = RevenueSearch(half_s=1.0, speed=1.0, max_move=0.5), knowing(0.7, 1.0)
    known = ElasticityEstimator(forgetting=0.98).estimate(demand)
    pull = 1.0 - known.mean
    followed = pull * np.maximum(1.0 - (known.error / pull) ** 2, 0.0)
    assert (followed == 0.0).any()
    assert ((0.2 * pull < followed) & (followed < 0.8 * pull)).any()
    fills = np.log(0.06 / controller.full) / np.maximum(known.mean, 0.5)
    np.testing.assert_allclose(
        moved(controller, demand, 0.06), np.clip(np.maximum(followed, fills), -0.5, 0.5), rtol=1e-6
    )


def test_of_whom_nobody_asks_any_more_no_price_rises_by_what_was_learned_while_they_were() -> None:
    controller, demand = RevenueSearch(half_s=1.0), knowing(0.4)
    assert (moved(controller, demand, 0.3) > 0.05).all()
    assert (moved(controller, demand, 0.0) == 0.0).all()
    assert (moved(controller, knowing(3.0), 0.0) < -0.05).all(), "but cheaper may be asked again"
