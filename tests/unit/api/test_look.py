"""A look at the market, which a thread reads while calls go on."""

from __future__ import annotations

import numpy as np

from broker.core.market import Presence, build_market
from broker.flows.market.read_prices import Health, Listing, Look
from pricing.book import PriceBook
from tests.fakes import RATE, endpoint, pulse
from tests.fakes import market as listed


def test_a_look_tells_load_and_health_as_they_were_when_it_was_taken() -> None:
    market = listed([endpoint(1, "acme/law"), endpoint(0, "borealis/law")])
    live = pulse(market)
    live.begin(1, 1, 0.0)
    live.take_others(np.array([0, 4]), frozenset({0}))
    look = Look(market, live, 0.0)
    live.begin(1, 1, 0.0)
    live.take_others(np.array([9, 9]), frozenset({1}))
    acme, borealis = look.listings()
    assert acme == Listing(market.endpoint(1), RATE, 0.5, Health.READY)
    assert borealis == Listing(market.endpoint(0), RATE, 0.0, Health.EJECTED)


def test_what_has_no_price_and_who_is_away_is_listed_as_such() -> None:
    endpoints = [endpoint(number, f"acme/{number}") for number in range(3)]
    rates = np.array([[7, 0], [0, 0], [0, 0]])
    away = {0: Presence.DRAINING, 2: Presence.DOWN}
    market = build_market(endpoints, PriceBook.from_matrix(3, rates), away)
    found = Look(market, pulse(market), 0.0).listings()
    assert [each.health for each in found] == [Health.DRAINING, Health.UNPRICED, Health.DOWN]
    assert [each.rate is None for each in found] == [False, True, True]
