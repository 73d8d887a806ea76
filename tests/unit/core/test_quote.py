"""Firm quotes as values: the promise, the demands of a call on it, and its decision."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.scoring import PARTS
from broker.core.catalog import Task
from broker.core.market import Market, Presence, build_market
from broker.core.quote import Promise, kept, on_quote, promise, quoted_market
from broker.core.requirements import Requirements
from broker.errors import QuoteRefused
from pricing.book import EndpointUnpriced, PriceBook, Rate
from pricing.money import charge_nanos
from pricing.tiers import Tier
from tests.fakes import decide, endpoint, market, planned, requirements

CHEAP, DEAR = Rate(100_000, 200_000, 0), Rate(2_000_000, 6_000_000, 0)


@pytest.fixture
def bourse() -> Market:
    return market(
        [
            endpoint(0, "cheap/small", rate=CHEAP),
            endpoint(1, "dear/small", rate=DEAR, max_output_tokens=128),
            endpoint(2, "new/small", rate=CHEAP, quality=0.0),
        ],
        version=7,
    )


def promised(bourse: Market, **asked: Any) -> Promise:
    """A quote for the first two endpoints."""
    asked = {"providers_ignore": frozenset({"new"})} | asked
    return promise(requirements(**asked), decide(bourse, **asked), bourse)


def decided(on: Promise, bourse: Market, **asked: Any) -> tuple[Requirements, Any]:
    """What a call on a quote comes to in a market."""
    wanted = on_quote(on, requirements(**asked))
    fields = {name: getattr(wanted, name) for name in Requirements.__struct_fields__}
    return wanted, kept(on, wanted, decide(quoted_market(on, bourse), **fields))


def test_a_promise_has_the_plan_with_its_ceilings_and_its_reasons(bourse: Market) -> None:
    made = promised(bourse)
    numbers = sorted(each.number for each in made.offers)
    assert numbers == [0, 1]
    for offer in made.offers:
        assert offer.ceiling_nanos == charge_nanos(offer.rate.picos(464, 100))
        assert 0 < offer.expected_nanos <= offer.ceiling_nanos
        assert offer.endpoint_id == bourse.endpoint(offer.number).id
        assert tuple(offer.parts) == PARTS
    assert made.price_version == 7
    assert (made.tokens_in, made.tokens_out_max) == (464, 100)
    assert made.ceiling_nanos == max(each.ceiling_nanos for each in made.offers)


def test_the_price_of_the_day_does_not_matter_and_the_order_is_the_quotes(bourse: Market) -> None:
    made = promised(bourse)
    columns = bourse.columns
    dearer = replace_book(bourse, bourse.book.matrix() * 5)
    _, decision = decided(made, dearer)
    assert planned(decision) == [each.number for each in made.offers]
    assert [each.rate for each in decision.plan] == [each.rate for each in made.offers]
    assert decision.price_version == 7
    assert decision.hold_nanos == made.ceiling_nanos
    assert dearer.columns is columns


def replace_book(bourse: Market, rates: Any) -> Market:
    book = PriceBook.from_matrix(bourse.book.version + 1, rates)
    return build_market([each for each in bourse.endpoints if each], book, bourse.presence, bourse)


def test_who_was_not_quoted_is_neither_called_nor_named(bourse: Market) -> None:
    made = promised(bourse)
    _, decision = decided(made, bourse, providers_ignore=frozenset())
    assert 2 not in planned(decision)
    assert decision.rejected.tolist() == []


def test_a_quoted_endpoint_that_is_away_is_left_out_with_its_reason(bourse: Market) -> None:
    made = promised(bourse)
    gone = build_market(
        [each for each in bourse.endpoints if each], bourse.book, {1: Presence.DOWN}, bourse
    )
    _, decision = decided(made, gone)
    assert planned(decision) == [0]
    assert decision.rejected.tolist() == [1]
    assert decision.reasons.tolist() == [Rejection.NOT_PRESENT]


def test_a_quoted_endpoint_that_left_the_market_is_not_there(bourse: Market) -> None:
    made = promised(bourse)
    smaller = market([endpoint(0, "cheap/small", rate=CHEAP)])
    _, decision = decided(made, smaller)
    assert planned(decision) == [0]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tokens_in_expected": 465}, "tokens_in"),
        ({"tokens_out_max": 101}, "tokens_out_max"),
        ({"choices": 2}, "choices"),
    ],
)
def test_more_than_was_quoted_is_refused_by_name(
    bourse: Market, changes: dict[str, int], field: str
) -> None:
    with pytest.raises(QuoteRefused) as raised:
        on_quote(promised(bourse), requirements(**changes))
    assert (raised.value.code, raised.value.facts["field"]) == ("quote_exceeded", field)


def test_another_task_is_refused(bourse: Market) -> None:
    with pytest.raises(QuoteRefused) as raised:
        on_quote(promised(bourse), requirements(task=Task.EMBEDDING))
    assert raised.value.code == "quote_mismatch"


def test_an_endpoint_that_was_quoted_fewer_tokens_is_left_out_for_a_longer_answer(
    bourse: Market,
) -> None:
    made = promised(bourse, tokens_out_max=None)
    limits = {each.number: each.tokens_out_max for each in made.offers}
    assert limits[1] == 128 < limits[0]
    _, decision = decided(made, bourse, tokens_out_max=129)
    assert planned(decision) == [0]
    _, decision = decided(made, bourse, tokens_out_max=128)
    assert sorted(planned(decision)) == [0, 1]


def test_a_call_is_bound_by_what_the_quote_was_asked_for_and_by_its_own_words(
    bourse: Market,
) -> None:
    made = promised(
        bourse,
        allow_training=False,
        regions=frozenset({"eu", "ch"}),
        domain="law",
        providers_only=frozenset({"cheap", "dear"}),
        skipped=("nobody: model_not_found",),
    )
    wanted = on_quote(
        made, requirements(allow_retention=False, regions=frozenset({"eu"}), tokens_out_max=None)
    )
    assert (wanted.allow_training, wanted.allow_retention) == (False, False)
    assert wanted.regions == {"eu"}
    assert wanted.domain == "law"
    assert wanted.providers_only == {"cheap", "dear"}
    assert wanted.skipped == made.wanted.skipped, "the story of the call says so"
    assert wanted.tokens_out_max == 100
    assert on_quote(made, requirements()).regions == {"eu", "ch"}


def test_a_prompt_is_bound_by_its_own_bytes_and_by_the_quote(bourse: Market) -> None:
    generous = promised(bourse, tokens_in_bound=1_000_000, tokens_in_expected=1_000)
    assert on_quote(generous, requirements()).tokens_in_bound == 464
    tight = promised(bourse, tokens_in_bound=110, tokens_in_expected=110)
    assert on_quote(tight, requirements()).tokens_in_bound == 110


@given(
    quoted=st.tuples(st.integers(1, 10_000), st.integers(1, 2_048), st.integers(1, 8)),
    asked=st.tuples(st.integers(1, 10_000), st.integers(1, 2_048), st.integers(1, 8)),
)
def test_whatever_a_call_asks_for_it_is_refused_or_fits_what_was_promised(
    quoted: tuple[int, int, int], asked: tuple[int, int, int]
) -> None:
    bourse = market([endpoint(0, "cheap/small", rate=CHEAP, context_length_tokens=100_000)])
    tokens_in, tokens_out, choices = quoted
    made = promised(
        bourse,
        tokens_in_bound=tokens_in,
        tokens_in_expected=tokens_in,
        tokens_out_max=tokens_out,
        choices=choices,
    )
    own_in, own_out, own_choices = asked
    try:
        wanted, decision = decided(
            made,
            bourse,
            tokens_in_bound=4 * own_in + 64,
            tokens_in_expected=own_in,
            tokens_out_max=own_out,
            choices=own_choices,
        )
    except QuoteRefused:
        assert own_in > tokens_in or own_out > tokens_out or own_choices > choices
        return
    [candidate] = decision.plan
    most = charge_nanos(
        candidate.rate.picos(wanted.tokens_in_bound, wanted.choices * candidate.tokens_out_max)
    )
    assert most <= candidate.ceiling_nanos == made.ceiling_nanos


def test_a_quote_for_a_tier_holds_though_its_providers_price_it_no_longer() -> None:
    members = [("cheap/small", CHEAP), ("dear/small", DEAR)]
    tiered, plain = (
        market(
            endpoint(at, name, rate=rate, tiers=tiers) for at, (name, rate) in enumerate(members)
        )
        for tiers in ({Tier.FLEX: 5_000}, {})
    )
    made = promised(tiered, tier=Tier.FLEX)
    assert {each.tier for each in (made.wanted, on_quote(made, requirements()))} == {Tier.FLEX}
    _, decision = decided(made, plain)
    assert decision.plan
    assert [each.rate for each in decision.plan] == [each.rate for each in made.offers]
    with pytest.raises(QuoteRefused) as raised:
        on_quote(made, requirements(tier=Tier.PRIORITY))
    assert raised.value.code == "quote_mismatch"


def test_a_quoted_market_has_the_quoted_prices_and_no_others(bourse: Market) -> None:
    made = promised(bourse)
    quoted = quoted_market(made, replace_book(bourse, bourse.book.matrix() * 5))
    assert [quoted.book.rate(number) for number in (0, 1)] == [CHEAP, DEAR]
    with pytest.raises(EndpointUnpriced):
        quoted.book.rate(2)
