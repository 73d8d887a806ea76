from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pricing.book import FloatArray, PriceBook
from pricing.controllers.revenue import RevenueSearch, RevenueState
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


def test_the_search_stays_within_the_band_with_both_of_its_sides() -> None:
    state, _ = searched(50.0, noise=0.0, rounds=150)  # demand that hardly minds the price
    top = np.log(20.0)
    assert (np.abs(state.centre) <= top).all()
    assert (state.centre > top - 2 * RevenueSearch().explore).all()


def test_a_load_without_sense_spoils_no_more_than_its_half() -> None:
    controller = RevenueSearch()
    state = controller.resume(PriceBook.empty(), OF)
    for tick in range(36):
        load = np.full(COUNT, np.nan if tick == 3 else 0.4)
        state, proposed = controller.step(state, MarketSnapshot(10.0 * tick, 10.0, load, OF))
        assert np.isfinite(proposed.rates).all()
    assert np.isfinite(state.demand.before_log_load).all()
    assert np.isfinite(replace(state).centre).all()
