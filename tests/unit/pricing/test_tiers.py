from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.book import Rate
from pricing.tiers import BPS, FactorMalformed, Tier, check_factor, tier_rate

FLOOR, CEILING = Rate(100, 200, 0), Rate(1_000, 2_000, 0)


def test_a_tier_costs_its_factor_times_the_price() -> None:
    rate = Rate(400, 800, 0)
    assert tier_rate(rate, 15_000, FLOOR, CEILING) == Rate(600, 1_200, 0)
    assert tier_rate(rate, 5_000, FLOOR, CEILING) == Rate(200, 400, 0)
    assert tier_rate(rate, BPS, FLOOR, CEILING) == rate


def test_a_tier_stays_within_the_band() -> None:
    assert tier_rate(Rate(900, 1_800, 0), 20_000, FLOOR, CEILING) == CEILING
    assert tier_rate(Rate(150, 300, 0), 1_000, FLOOR, CEILING) == FLOOR


def test_a_rate_is_rounded_up_so_that_it_is_never_nothing() -> None:
    assert tier_rate(Rate(1, 0, 3), 1, Rate(0, 0, 0), Rate(9, 9, 9)) == Rate(1, 0, 1)


@given(st.integers(100, 1_000), st.integers(1, 10**6))
def test_a_higher_factor_is_never_cheaper(rate: int, factor_bps: int) -> None:
    price = Rate(rate, 2 * rate, 0)
    less, more = (tier_rate(price, each, FLOOR, CEILING) for each in (factor_bps, factor_bps + 1))
    assert less.rate_in_micros <= more.rate_in_micros
    assert FLOOR.rate_in_micros <= less.rate_in_micros <= CEILING.rate_in_micros


@pytest.mark.parametrize(
    ("tier", "factor_bps", "told"),
    [
        (Tier.STANDARD, BPS, "no factor"),
        (Tier.PRIORITY, BPS - 1, "cheaper"),
        (Tier.FLEX, BPS + 1, "dearer"),
        (Tier.BATCH, BPS + 1, "dearer"),
        (Tier.FLEX, 0, "above 0"),
        (Tier.PRIORITY, 100 * BPS + 1, "at most 100"),
    ],
)
def test_a_factor_that_is_not_what_the_tier_is_for_is_refused(
    tier: Tier, factor_bps: int, told: str
) -> None:
    with pytest.raises(FactorMalformed, match=told):
        check_factor(tier, factor_bps)


@pytest.mark.parametrize(
    ("tier", "least_bps", "most_bps"),
    [(Tier.PRIORITY, BPS, 100 * BPS), (Tier.FLEX, 1, BPS), (Tier.BATCH, 1, BPS)],
)
def test_a_factor_may_be_all_that_the_tier_is_for(
    tier: Tier, least_bps: int, most_bps: int
) -> None:
    check_factor(tier, least_bps)
    check_factor(tier, most_bps)
