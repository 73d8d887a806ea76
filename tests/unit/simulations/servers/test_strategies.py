"""What each strategy of a provider lists, reports, declares and claims."""

from __future__ import annotations

import math

import pytest

from broker.core.catalog import Band
from pricing.book import Rate
from simulations.servers.strategies import (
    Sight,
    acts_every_s,
    band_for,
    claimed,
    declared,
    reported,
)
from simulations.supply import (
    Bait,
    CollusiveFloor,
    CostPlus,
    EndpointSpec,
    Honest,
    LieAboutLoad,
    LieAboutQuality,
    LieAboutTokens,
    SharingServer,
    Strategy,
    Undercut,
)

BAND = Band(
    floor_in_micros=10,
    list_in_micros=100,
    ceiling_in_micros=1_000,
    floor_out_micros=40,
    list_out_micros=400,
    ceiling_out_micros=4_000,
)
SPEC = EndpointSpec(
    "chat", SharingServer(), BAND, quality=0.5, domains={"law": 0.6}, cost=Rate(20, 80, 0)
)


def listed(strategy: Strategy, **seen: float | Band) -> tuple[int, int]:
    """The list prices that it sets."""
    given = {"at_s": 0.0, "cheapest_other": 600.0, "mean_load": 0.1, "band": BAND} | seen
    band = band_for(strategy, SPEC, Sight(**given))  # type: ignore[arg-type]
    assert band.floor_in_micros <= band.list_in_micros <= band.ceiling_in_micros
    return band.list_in_micros, band.list_out_micros


def test_the_honest_change_nothing_and_tell_what_is() -> None:
    honest = Honest()
    assert acts_every_s(honest) is None
    assert listed(honest) == (100, 400)
    assert reported(honest, 3, 2) == (3.0, 2.0)
    assert declared(honest, SPEC) == (0.5, {"law": 0.6})
    assert claimed(honest, 100) == 100


def test_who_undercuts_lists_a_share_below_the_cheapest_other_but_not_below_cost() -> None:
    strategy = Undercut(0.1)
    assert listed(strategy, cheapest_other=600.0) == (108, 432)
    assert listed(strategy, cheapest_other=10.0) == (20, 80)
    assert listed(strategy, cheapest_other=math.inf) == (100, 400)


def test_cost_plus_is_cost_and_a_margin() -> None:
    assert listed(CostPlus(0.5)) == (30, 120)


def test_a_floor_that_was_agreed_on_holds_while_the_agreement_does() -> None:
    strategy = CollusiveFloor(2.0, 10.0, 20.0)
    assert listed(strategy, at_s=9.0) == (100, 400)
    assert listed(strategy, at_s=10.0) == (200, 800)
    agreed = band_for(strategy, SPEC, Sight(10.0, 600.0, 0.1, BAND))
    assert (agreed.floor_in_micros, agreed.floor_out_micros) == (200, 800)
    assert listed(strategy, at_s=20.0) == (100, 400)


def test_bait_is_cheap_until_it_is_taken_and_stays_dear_until_all_have_left() -> None:
    strategy = Bait(lure=0.5, catch=1.5, until_load=0.6)
    assert listed(strategy, mean_load=0.5) == (50, 200)
    assert listed(strategy, mean_load=0.7) == (150, 600)
    dear = band_for(strategy, SPEC, Sight(0.0, 600.0, 0.7, BAND))
    assert listed(strategy, mean_load=0.4, band=dear) == (150, 600)
    assert listed(strategy, mean_load=0.2, band=dear) == (50, 200)


@pytest.mark.parametrize("strategy", [Undercut(0.9), CostPlus(50.0), Bait(0.001, 90.0)])
def test_no_list_price_leaves_what_a_band_may_be(strategy: Strategy) -> None:
    for load in (0.0, 1.0):
        prices = listed(strategy, cheapest_other=5.0, mean_load=load)
        assert 1 <= prices[0] <= 1_000
        assert 1 <= prices[1] <= 4_000


def test_lies_are_told_in_one_thing_each() -> None:
    assert reported(LieAboutLoad(3.0, 8), 4, 2) == (20.0, 6.0)
    assert declared(LieAboutQuality(0.9), SPEC) == (0.9, {"law": 0.9})
    assert claimed(LieAboutTokens(1.25), 100) == 125
