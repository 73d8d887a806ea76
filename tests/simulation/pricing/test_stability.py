"""The closed loop of price and demand against the theory of delayed feedback."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import pytest

from pricing.book import PriceBook
from pricing.controllers.excess import ExcessLoad
from pricing.guardrails import Guardrails, clamp, gain_limit
from pricing.snapshot import Bands, MarketSnapshot

TARGET = 0.5
LIST = 10**9
BAND = Bands.from_rows({0: (LIST // 1000, LIST, LIST * 1000, 0, 0, 0, 0, 0, 0)})


def log_prices(share_of_limit: float, tau_ticks: int) -> list[float]:
    """ln(price / list) over time, where demand answers with constant elasticity to the price of
    `tau_ticks` ago, and list price 5% above the one that clears the market."""
    gain = share_of_limit * gain_limit(tau_ticks)
    elasticity = 1.0
    controller = ExcessLoad(target=TARGET, k_s=TARGET * elasticity / gain)
    state = controller.resume(PriceBook.from_matrix(1, BAND.listed), BAND)
    seen = deque([0.0] * (tau_ticks + 1), maxlen=tau_ticks + 1)
    path = []
    for tick in range(300 * (2 * tau_ticks + 1)):  # a longer delay settles in proportion later
        load = TARGET * math.exp(-elasticity * (seen[0] + 0.05))
        snapshot = MarketSnapshot(float(tick), 1.0, np.array([load]), BAND)
        state, proposed = controller.step(state, snapshot)
        seen.append(math.log(proposed.rates[0, 0] / LIST))
        path.append(seen[-1])
    return path


@pytest.mark.parametrize("tau_ticks", [0, 1, 2, 3, 8])
def test_at_half_the_gain_limit_the_price_settles_where_the_market_clears(tau_ticks: int) -> None:
    assert log_prices(0.5, tau_ticks)[-1] == pytest.approx(-0.05, abs=1e-6)


@pytest.mark.parametrize("tau_ticks", [0, 1, 2, 3, 8])
def test_just_below_the_gain_limit_swings_die_out_and_above_it_they_do_not(tau_ticks: int) -> None:
    def swing(share_of_limit: float) -> float:
        tail = log_prices(share_of_limit, tau_ticks)[-100:]
        return max(tail) - min(tail)

    assert swing(0.9) < 1e-3
    assert swing(1.1) > 0.05


def test_the_default_controller_is_far_inside_the_limit_for_elastic_demand_seen_late() -> None:
    default = ExcessLoad()
    elasticity, tau_ticks = 5.0, 5
    assert default.target * elasticity / default.k_s < 0.5 * gain_limit(tau_ticks)


def test_no_load_outruns_the_largest_step_of_the_default_guardrails() -> None:
    default = ExcessLoad()
    fastest = math.exp((default.load_cap - default.target) / default.k_s)
    assert fastest < Guardrails().max_step_ratio


def test_a_rush_lifts_the_published_price_and_its_end_brings_it_back_without_delay() -> None:
    controller, book = ExcessLoad(), PriceBook.from_matrix(1, BAND.listed)
    state = controller.resume(book, BAND)
    path = []
    for tick in range(240):
        load = np.array([1.5 if tick < 120 else 0.2])
        state, proposed = controller.step(state, MarketSnapshot(float(tick), 1.0, load, BAND))
        book = clamp(book, proposed, BAND, tick + 2)
        path.append(book.rate(0).rate_in_micros)
    assert path[:120] == sorted(path[:120])
    assert path[119:] == sorted(path[119:], reverse=True)
    assert path[119] / LIST == pytest.approx(math.exp(0.8 * 120 / 60), rel=2e-3)
    assert path[-1] / path[119] == pytest.approx(math.exp(-0.5 * 120 / 60), rel=2e-3)
