"""Why a call goes nowhere, in a sentence and with facts that help."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from broker.core.candidates.view import RoutingLimits
from broker.core.catalog import Task
from broker.core.market import Market, Presence
from broker.core.requirements import Requirements
from broker.errors import BrokerError, ModelUnknown, NothingFits, TooManyCalls
from broker.flows.calls.decide import choose, refusal
from broker.gateway.admit import demands
from broker.gateway.openai import parse
from broker.gateway.refusals import kserve_refusal, openai_refusal
from pricing.book import Rate
from pricing.tiers import Tier
from tests.fakes import ACCOUNT, endpoint, market, pulse, requirements


def running(where: Market) -> Any:
    return SimpleNamespace(
        market=where,
        pulse=pulse(where),
        routing=RoutingLimits(),
        random=Random(1),
        now_s=lambda: 0.0,
    )


def refused(runtime: Any, **demands: Any) -> BrokerError:
    wanted: Requirements = requirements(**demands)
    decision = choose(wanted, runtime)
    assert not decision.plan
    return refusal(wanted, decision, runtime)


def test_a_model_that_nobody_serves_is_unknown() -> None:
    with pytest.raises(ModelUnknown, match="'large'"):
        choose(requirements(model="large"), running(market([endpoint(0)])))


def test_where_nobody_does_what_is_asked_for_no_model_is_blamed() -> None:
    wanted = requirements(model="auto", task=Task.EMBEDDING)
    with pytest.raises(ModelUnknown, match=r"^No endpoint serves embedding here"):
        choose(wanted, running(market([endpoint(0)])))


def test_a_price_that_nobody_meets_is_answered_with_the_cheapest_that_would_have_fitted() -> None:
    members = [
        endpoint(0, "acme/dear", rate=Rate(10**6, 10**6, 0)),
        endpoint(1, "acme/cheap", rate=Rate(5 * 10**5, 5 * 10**5, 0)),
        endpoint(2, "acme/cheapest-but-poor", rate=Rate(10**5, 10**5, 0), quality=0.1),
        endpoint(3, "acme/cheaper-but-short", rate=Rate(10**5, 10**5, 0), context_length_tokens=50),
    ]
    error = refused(running(market(members)), quality_min=0.4, max_rate_in_micros=1_000)
    assert isinstance(error, NothingFits)
    assert error.code == "nothing_within_price"
    # At most 464 tokens in and 100 out, at half a micro-dollar each.
    assert error.facts["cheapest"] == {
        "endpoint": "acme/cheap",
        "price_in_usd": "0.50",
        "price_out_usd": "0.50",
        "price_call_usd": "0.00",
        "ceiling_cost_usd": "0.000282",
    }
    assert "acme/cheap at 0.50" in error.detail


def test_the_cheapest_that_is_named_would_be_taken_at_its_cost() -> None:
    members = [endpoint(0), endpoint(1, rate=Rate(5 * 10**5, 5 * 10**5, 0))]
    runtime = running(market(members))
    error = refused(runtime, max_cost_nanos=1, tokens_out_max=None)
    assert error.code == "nothing_within_price"
    told: Any = error.facts["cheapest"]
    nanos = round(float(told["ceiling_cost_usd"]) * 10**9)
    assert choose(requirements(max_cost_nanos=nanos, tokens_out_max=None), runtime).plan
    assert not choose(requirements(max_cost_nanos=nanos - 1, tokens_out_max=None), runtime).plan


def test_where_no_price_would_help_none_is_named() -> None:
    where = market([endpoint(0, rate=Rate(10**6, 10**6, 0), context_length_tokens=50)])
    error = refused(running(where), max_rate_in_micros=1_000)
    assert error.code == "nothing_fits"
    assert "cheapest" not in error.facts


def test_a_prompt_that_is_too_long_is_told_so_as_openai_s_clients_know_it() -> None:
    lengths = {"acme/short": 50, "acme/longer": 8_000}
    members = [
        *(
            endpoint(at, name, context_length_tokens=lengths[name])
            for at, name in enumerate(lengths)
        ),
        endpoint(2, "acme/poor", quality=0.1),
    ]
    error = refused(running(market(members)), quality_min=0.4, tokens_in_expected=9_000)
    assert (error.status, error.code) == (400, "context_length_exceeded")
    assert "9,000 tokens of the prompt and up to 100 of the answer" in error.detail
    assert "prompt is too long" in error.detail, "by this LangChain knows it"
    known = "this model's maximum context length is"
    assert f"{known} 8,000 tokens" in error.detail, "by this LiteLLM knows it"


def test_who_asks_for_too_long_an_answer_is_not_told_that_the_prompt_is_too_long() -> None:
    error = refused(running(market([endpoint(0, context_length_tokens=50)])), tokens_out_max=60)
    assert error.code == "context_length_exceeded"
    assert error.detail.startswith("The answer asked for is too long: ")


def test_many_short_texts_to_embed_at_once_are_not_too_long_but_one_long_one_is() -> None:
    only = endpoint(0, tasks=[Task.EMBEDDING], context_length_tokens=512)
    runtime = running(market([only]))
    texts = ["a dozen words or so that somebody wants to find again"] * 500
    assert choose(embedding(texts), runtime).plan
    wanted = embedding([*texts, "word " * 1_000])
    error = refusal(wanted, choose(wanted, runtime), runtime)
    assert error.code == "context_length_exceeded"
    assert "about 1,250 tokens of the longest text are too many" in error.detail


def embedding(texts: list[str]) -> Requirements:
    asked = parse("/v1/embeddings", [], msgspec.json.encode({"model": "auto", "input": texts}))
    return demands(asked, ACCOUNT)


def test_an_answer_that_is_asked_for_too_long_is_told_how_long_it_may_be() -> None:
    lengths = (512, 2_048)
    where = market([endpoint(at, max_output_tokens=each) for at, each in enumerate(lengths)])
    error = refused(running(where), tokens_out_max=3_000)
    assert (error.status, error.code) == (404, "nothing_fits")
    assert "output limit too low (2). The longest answer is 2,048 tokens." in error.detail


def test_the_rejected_are_told_with_their_reasons() -> None:
    error = refused(running(market([endpoint(0, "acme/small", quality=0.1)])), quality_min=0.4)
    assert (error.status, error.code) == (404, "nothing_fits")
    assert error.facts["rejected"] == [{"endpoint": "acme/small", "reason": "quality_too_low"}]
    assert "quality below the minimum (1)" in error.detail


def test_when_all_that_fit_are_full_the_caller_may_come_again_and_demand_is_counted() -> None:
    runtime = running(market([endpoint(0), endpoint(1)]))
    for number in (0, 1):
        for _ in range(20):
            runtime.pulse.begin(number, number, 0.0)
    error = refused(runtime)
    assert isinstance(error, TooManyCalls)
    assert (error.status, error.code) == (429, "providers_full")
    assert error.retry_after_s is not None
    assert 1.0 <= error.retry_after_s <= 1.5, "calls take a second, as far as anybody knows"
    assert runtime.pulse.refused[:2].tolist() == [1, 1]


def test_where_calls_take_long_whoever_is_refused_comes_again_later() -> None:
    runtime = running(market([endpoint(0)]))
    for _ in range(20):
        runtime.pulse.begin(0, 0, 0.0)
    runtime.pulse.service_s[0] = 100.0
    over = runtime.pulse.load_of(0) - 2 * runtime.market.endpoint(0).deployment.capacity
    expected_s = 100.0 * (over + 1) / runtime.market.endpoint(0).deployment.capacity
    error = refused(runtime)
    assert error.retry_after_s is not None
    assert min(expected_s, 60.0) <= error.retry_after_s <= 1.5 * min(expected_s, 60.0)


@pytest.mark.parametrize("away", [False, True])
def test_one_that_is_full_is_what_keeps_a_call_out_whatever_the_others_lack(away: bool) -> None:
    members = [endpoint(0), endpoint(1, quality=0.1), endpoint(2, rate=Rate(10**9, 10**9, 0))]
    runtime = running(market(members, {0: Presence.DOWN} if away else {}))
    for _ in range(20):
        runtime.pulse.begin(0, 0, 0.0)
    error = refused(runtime, quality_min=0.4, max_cost_nanos=10**7)
    assert error.code == ("nothing_within_price" if away else "providers_full")
    assert runtime.pulse.refused[:3].tolist() == [0 if away else 1, 0, 0]


def test_who_looks_among_the_full_for_a_cheaper_tier_is_not_counted_as_demand() -> None:
    runtime = running(market([endpoint(0, tiers={Tier.FLEX: 5_000}), endpoint(1)]))
    for _ in range(9):
        runtime.pulse.begin(0, 0, 0.0)
    assert refused(runtime, tier=Tier.FLEX).code == "providers_full"
    assert runtime.pulse.refused[:2].tolist() == [0, 0]


def test_when_all_that_fit_are_away_it_may_pass() -> None:
    error = refused(running(market([endpoint(0)], {0: Presence.DOWN})))
    assert (error.status, error.code) == (503, "providers_away")


class TestShapes:
    error = NothingFits("Nothing fits.", facts={"rejected": []}, retry_after_s=0.2)

    def test_openai_clients_read_an_error_object(self) -> None:
        status, headers, body = openai_refusal(self.error)
        assert status == 404
        assert (b"retry-after", b"1") in headers
        assert body == (
            b'{"error":{"message":"Nothing fits.","type":"not_found_error","param":null,'
            b'"code":"nothing_fits","broker":{"rejected":[]}}}'
        )

    def test_triton_clients_read_a_string(self) -> None:
        _, _, body = kserve_refusal(self.error)
        assert body == b'{"error":"Nothing fits. [nothing_fits]","broker":{"rejected":[]}}'

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (TooManyCalls("x"), False),
            (NothingFits("x", status=503), True),
            (NothingFits("x"), False),
            (BrokerError("x"), True),
        ],
    )
    def test_what_a_client_would_repeat_in_vain_says_so(
        self, error: BrokerError, told: bool
    ) -> None:
        _, headers, _ = openai_refusal(error)
        assert ((b"x-should-retry", b"false") in headers) is told
