"""An endpoint at the limit that was learned is full, for one tier sooner than for another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from broker.core.candidates.eligibility import Rejection
from broker.core.catalog import Band
from broker.core.health.pulse import Pulse
from broker.core.market import Market
from pricing.tiers import Tier
from tests.fakes import decide, endpoint, market, planned, pulse

FACTORS = {Tier.PRIORITY: 15_000, Tier.FLEX: 5_000}
BAND = Band(100_000, 500_000, 1_000_000, 300_000, 1_500_000, 2_000_000)
NAMED = "acme/small"


@pytest.fixture
def where() -> Market:
    """Two endpoints of ten places each, at all tiers' prices."""
    made = [endpoint(0, NAMED), endpoint(1, "globex/small")]
    return market([replace(each, band=BAND, tiers=FACTORS) for each in made])


def busy(live: Pulse, deployment: int, calls: int) -> Pulse:
    live.in_flight_at[deployment] = calls
    return live


def test_at_its_limit_an_endpoint_is_full_whether_it_is_named_or_not(where: Market) -> None:
    live = busy(pulse(where), 0, 5)
    assert planned(decide(where, live, model=NAMED)) == [0]
    live.set_limit(0, 5.0)
    alone = decide(where, live, model=NAMED)
    assert (alone.plan, alone.reasons.tolist()) == ((), [Rejection.FULL])
    assert planned(decide(where, live)) == [1]
    busy(live, 0, 4)
    assert planned(decide(where, live, model=NAMED)) == [0]
    assert sorted(planned(decide(where, live))) == [0, 1]
    live.set_limit(0, np.inf)
    assert not live.has_limits


def test_priority_is_refused_last_and_flex_first(where: Market) -> None:
    live = pulse(where)
    live.set_limit(0, 8.0)

    def served(calls: int) -> list[Tier]:
        busy(live, 0, calls)
        tiers = (Tier.FLEX, Tier.STANDARD, Tier.PRIORITY)
        return [each for each in tiers if decide(where, live, model=NAMED, tier=each).plan]

    assert served(3) == [Tier.FLEX, Tier.STANDARD, Tier.PRIORITY]
    assert served(4) == [Tier.STANDARD, Tier.PRIORITY]
    assert served(8) == [Tier.PRIORITY]
    assert served(10) == []


def test_without_a_limit_priority_still_finds_room_where_the_rest_is_full(where: Market) -> None:
    live = busy(pulse(where), 0, 20)
    assert decide(where, live, model=NAMED).plan == ()
    assert planned(decide(where, live, model=NAMED, tier=Tier.PRIORITY)) == [0]
    busy(live, 0, 25)
    assert decide(where, live, model=NAMED, tier=Tier.PRIORITY).plan == ()
