"""Firm quotes as values: the promise, the demands of a call on it, and its decision."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.scoring import PARTS
from broker.core.cascade import SAMPLE, Cascade, Stage
from broker.core.catalog import Task
from broker.core.chain import Chain
from broker.core.decision import Decision
from broker.core.market import Market, Presence, build_market
from broker.core.quote import Promise, in_stages, kept, on_quote, promise, quoted_market
from broker.core.requirements import PRESETS, Requirements
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


OF_QUOTE = {"version": "1", "domain": "law"}
OF_CALL = {"version": "2", "domain": "hr"}


@pytest.mark.parametrize("asked", [{}, OF_QUOTE])
@pytest.mark.parametrize("called", [{}, OF_CALL])
def test_what_a_call_names_goes_before_what_its_quote_named(
    bourse: Market, asked: dict[str, str], called: dict[str, str]
) -> None:
    made = Promise(requirements(**asked), 7, promised(bourse).offers)
    wanted = on_quote(made, requirements(**called))
    assert (wanted.version, wanted.domain) == tuple(
        (called or asked or {"version": None, "domain": None}).values()
    )


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("called", [True, False])
def test_what_either_the_quote_or_the_call_forbids_is_forbidden(
    bourse: Market, quoted: bool, called: bool
) -> None:
    some = {"providers_only": frozenset({"cheap", "dear"}), "regions": frozenset({"eu", "ch"})}
    other = {"providers_only": frozenset({"dear", "new"}), "regions": frozenset({"ch"})}
    made = Promise(
        requirements(
            allow_retention=quoted,
            allow_training=called,
            providers_ignore=frozenset({"one"}),
            **(some if quoted else {}),
        ),
        7,
        promised(bourse).offers,
    )
    own = {"allow_retention": called, "allow_training": quoted, **(other if called else {})}
    wanted = on_quote(made, requirements(providers_ignore=frozenset({"two"}), **own))
    assert wanted.allow_retention == wanted.allow_training == (quoted and called)
    assert wanted.providers_ignore == {"one", "two"}
    for name in some:
        sets = [each[name] for each, told in ((some, quoted), (other, called)) if told]
        assert getattr(wanted, name) == (frozenset.intersection(*sets) if sets else None)


@pytest.mark.parametrize(
    ("own", "value_nanos", "paced"),
    [
        ({}, 5, True),
        ({"value_nanos": 7}, 7, False),
        ({"weights": PRESETS["cheap"]}, None, False),
        ({"weights": PRESETS["cheap"], "value_nanos": 7}, 7, False),
    ],
)
def test_what_money_was_worth_to_a_quote_holds_where_the_call_says_nothing_else(
    bourse: Market, own: dict[str, Any], value_nanos: int | None, paced: bool
) -> None:
    made = Promise(requirements(value_nanos=5, paced=True), 7, promised(bourse).offers)
    wanted = on_quote(made, requirements(**own))
    assert (wanted.value_nanos, wanted.paced) == (value_nanos, paced)


def test_an_answer_is_no_longer_than_it_was_quoted_nor_than_it_is_asked_for() -> None:
    """A shorter prompt leaves more room, but what is held is the quoted ceiling."""
    bourse = market(
        [
            endpoint(0, "tight/small", rate=CHEAP, context_length_tokens=600),
            endpoint(1, "roomy/small", rate=CHEAP),
        ]
    )
    made = promised(bourse, tokens_out_max=None)
    limits = {each.number: each.tokens_out_max for each in made.offers}
    assert limits == {0: 600 - (2 * 100 + 64), 1: 2_048}

    def granted(tokens_out_max: int | None) -> dict[int, int]:
        asked = {"tokens_in_expected": 10, "tokens_in_bound": 20, "tokens_out_max": tokens_out_max}
        return {each.number: each.tokens_out_max for each in decided(made, bourse, **asked)[1].plan}

    assert granted(None) == limits
    assert granted(50) == {0: 50, 1: 50}
    assert granted(limits[0]) == {0: limits[0], 1: limits[0]}
    assert granted(400) == {1: 400}, "though it would fit the other, who was quoted for less"


class TestStages:
    """Of a quoted cascade."""

    cascade = Cascade((Stage("one", 0.9), Stage("two", 0.8), Stage("three", 0.0)))

    def quoted(self, cascade: Cascade) -> tuple[Market, Promise]:
        """Two endpoints in the first stage and one in either of the others."""
        bourse = market(
            endpoint(at, f"maker-{at}/small", rate=Rate(10**5 * (1 + at), 10**6, 0))
            for at in range(4)
        )
        plain = decide(bourse)
        by_number = sorted(plain.plan, key=lambda each: each.number)
        chain = Chain(
            **{name: getattr(plain, name) for name in Decision.__struct_fields__}
            | {"plan": tuple(by_number)},
            by_place=(0, 0, 1, 2),
            keep_from=(0.9, None, 0.0),
        )
        return bourse, promise(requirements(), chain, bourse, cascade)

    @pytest.mark.parametrize("agreement", [None, SAMPLE])
    def test_it_may_cost_the_dearest_of_each_and_what_is_asked_beside(
        self, agreement: str | None
    ) -> None:
        bourse, made = self.quoted(msgspec.structs.replace(self.cascade, agreement=agreement))
        first, second, third = (made.offers[at].ceiling_nanos for at in (1, 2, 3))
        beside = 0 if agreement is None else first + second
        assert made.ceiling_nanos == first + second + third + beside
        assert made.stages is not None
        _, plain = decided(made, bourse)
        assert in_stages(made, made.stages, plain).hold_nanos == made.ceiling_nanos

    @pytest.mark.parametrize(
        ("gone", "stages", "keep_from"),
        [
            ((), (0, 0, 1, 2), (0.9, None, 0.0)),
            ((0,), (0, 1, 2), (0.9, None, 0.0)),
            ((0, 1), (0, 1), (None, 0.0)),
            ((2,), (0, 0, 1), (0.9, 0.0)),
            ((3,), (0, 0, 1), (0.9, 0.0)),  # who is now the last is kept whatever it is worth
            ((2, 3), (0, 0), (0.9,)),
        ],
    )
    def test_a_stage_of_whom_nobody_is_there_is_left_out(
        self, gone: tuple[int, ...], stages: tuple[int, ...], keep_from: tuple[float | None, ...]
    ) -> None:
        bourse, made = self.quoted(self.cascade)
        away = build_market(
            [each for each in bourse.endpoints if each],
            bourse.book,
            dict.fromkeys(gone, Presence.DOWN),
            bourse,
        )
        _, plain = decided(made, away)
        assert made.stages is not None
        chain = in_stages(made, made.stages, plain)
        assert planned(chain) == [at for at in range(4) if at not in gone]
        assert chain.by_place == stages
        assert chain.keep_from == keep_from


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
