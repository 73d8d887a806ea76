"""Tiers in a decision: what they cost, who serves them, and that nothing is billed otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.core.candidates.eligibility import Rejection
from broker.core.catalog import Band, Endpoint
from broker.core.market import Market
from broker.core.quote import on_quote, promise, quoted_market
from broker.core.terms import factors_of
from broker.errors import QuoteRefused, RequestMalformed
from pricing.book import EndpointUnpriced, Rate
from pricing.tiers import Factors, Tier
from tests.fakes import RATE, decide, endpoint, market, pulse, requirements

FACTORS: Factors = {Tier.PRIORITY: 15_000, Tier.FLEX: 5_000}
BAND = Band(100_000, 500_000, 1_000_000, 300_000, 1_500_000, 2_000_000)
"""RATE as list price, with room below and above."""
FLEX, DEAR = Rate(250_000, 750_000, 0), Rate(750_000, 2_000_000, 0)


def tiered(number: int = 0, name: str = "acme/small", tiers: Factors = FACTORS) -> Endpoint:
    return replace(endpoint(number, name), band=BAND, tiers=tiers)


@pytest.fixture
def where() -> Market:
    """`acme` with tiers, `plain` without."""
    return market([tiered(), endpoint(1, "plain/small")])


def reasons(of: Market, tier: Tier, **asked: object) -> dict[str, str]:
    decision = decide(of, tier=tier, **asked)
    pairs = zip(decision.rejected.tolist(), decision.reasons.tolist(), strict=True)
    return {of.endpoint(number).name: Rejection(reason).name for number, reason in pairs}


@pytest.mark.parametrize(
    ("tier", "rate"), [(Tier.STANDARD, RATE), (Tier.FLEX, FLEX), (Tier.PRIORITY, DEAR)]
)
def test_a_call_is_decided_and_held_at_the_price_of_its_tier(
    where: Market, tier: Tier, rate: Rate
) -> None:
    decision = decide(where, tier=tier, model="acme/small")
    (candidate,) = decision.plan
    assert candidate.rate == rate
    assert candidate.ceiling_nanos == -(-rate.picos(464, 100) // 1_000)
    assert float(decision.costs_picos[0]) == rate.picos(100, 100)


def test_a_tier_that_an_endpoint_does_not_price_is_refused(where: Market) -> None:
    assert reasons(where, Tier.FLEX) == {"plain/small": "TIER_UNPRICED"}
    assert reasons(where, Tier.BATCH) == dict.fromkeys(
        ["acme/small", "plain/small"], "TIER_UNPRICED"
    )
    assert decide(where, tier=Tier.BATCH).plan == ()
    with pytest.raises(EndpointUnpriced):
        where.rate(0, Tier.BATCH)


def test_without_a_tier_both_serve(where: Market) -> None:
    assert {each.number for each in decide(where).plan} == {0, 1}


def test_a_price_limit_is_held_against_the_price_of_the_tier(where: Market) -> None:
    limit = {"max_rate_in_micros": 300_000}
    assert "acme/small" in reasons(where, Tier.STANDARD, **limit)
    assert "acme/small" not in reasons(where, Tier.FLEX, **limit)


def test_what_is_cheaper_yields_to_the_others_when_it_gets_busy() -> None:
    where = market([replace(tiered(), tiers=FACTORS | {Tier.BATCH: 4_000})])
    live = pulse(where)
    for _ in range(8):  # of 10
        live.begin(0, 0, 0.0)
    served = {tier: bool(decide(where, live, tier=tier).plan) for tier in Tier}
    assert served == {
        Tier.STANDARD: True,
        Tier.PRIORITY: True,
        Tier.FLEX: False,
        Tier.BATCH: False,
    }
    decision = decide(where, live, tier=Tier.FLEX)
    assert decision.reasons.tolist() == [Rejection.FULL]


def test_an_endpoint_without_a_price_has_none_for_its_tiers_either() -> None:
    where = market([replace(tiered(), band=Band())])
    assert reasons(where, Tier.FLEX) == {"acme/small": "UNPRICED"}


def test_a_quote_is_for_one_tier_and_its_price_is_not_reduced_twice(where: Market) -> None:
    asked = requirements(tier=Tier.FLEX, model="acme/small")
    promised = promise(asked, decide(where, tier=Tier.FLEX, model="acme/small"), where)
    assert promised.offers[0].rate == FLEX
    wanted = on_quote(promised, requirements(model="acme/small"))
    assert wanted.tier is Tier.FLEX
    (candidate,) = decide(quoted_market(promised, where), tier=wanted.tier).plan
    assert candidate.rate == FLEX
    with pytest.raises(QuoteRefused, match="tier flex"):
        on_quote(promised, requirements(tier=Tier.PRIORITY))


def test_factors_are_read_from_an_offer() -> None:
    read = factors_of({"priority": "1.5", "flex": "0.5", "batch": "0.1234"}, "tiers")
    assert read == {Tier.PRIORITY: 15_000, Tier.FLEX: 5_000, Tier.BATCH: 1_234}


@pytest.mark.parametrize(
    ("name", "factor", "told"),
    [
        ("priority", "0.9", "must not be cheaper"),
        ("flex", "1.1", "must not be dearer"),
        ("flex", "0", "above 0"),
        ("batch", "0.00001", "at most 4 decimals"),
        ("priority", "101", "at most 100"),
    ],
)
def test_a_factor_without_sense_is_refused_by_field(name: str, factor: str, told: str) -> None:
    with pytest.raises(RequestMalformed, match=told) as refusal:
        factors_of({name: factor}, "endpoints[0].tiers")  # type: ignore[dict-item]
    assert refusal.value.facts["field"] == f"endpoints[0].tiers.{name}"
