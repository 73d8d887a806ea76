"""What a caller may ask of the broker, in the body, in headers, in both; and what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from broker.core.requirements import PRESETS, Weights
from broker.errors import RequestMalformed, UnknownField
from broker.gateway.wishes import NO_WISHES, Wishes, in_tier, read_wishes
from pricing.tiers import Tier


def of_body(**wishes: Any) -> Wishes:
    return read_wishes(msgspec.Raw(json.dumps(wishes).encode()), [])


def of_headers(**wishes: str) -> Wishes:
    return read_wishes(None, as_headers(**wishes))


def as_headers(**wishes: str) -> list[tuple[bytes, bytes]]:
    return [
        (f"x-broker-{name.replace('_', '-')}".encode(), text.encode())
        for name, text in wishes.items()
    ]


SAME_IN_BOTH: list[tuple[str, Any, str, str, Any]] = [
    ("domain", "law", "law", "domain", "law"),
    ("quality_min", 0.5, "0.5", "quality_min", 0.5),
    ("latency_ms_max", 900, "900", "latency_ms_max", 900.0),
    ("data_policy", "no_retention", "no_retention", "data_policy", "no_retention"),
    ("deadline_s", 12.5, "12.5", "deadline_s", 12.5),
    ("task", "triage", "triage", "task", "triage"),
    ("session_id", "s-1", "s-1", "session_id", "s-1"),
    ("labels", {"team": "a", "env": "b"}, "team=a, env=b", "labels", {"team": "a", "env": "b"}),
]


@pytest.mark.parametrize(("name", "value", "text", "field", "read"), SAME_IN_BOTH)
def test_a_wish_reads_the_same_in_body_and_header(
    name: str, value: Any, text: str, field: str, read: Any
) -> None:
    assert getattr(of_body(**{name: value}), field) == read
    assert getattr(of_headers(**{name: text}), field) == read


def test_without_wishes_there_are_none() -> None:
    assert read_wishes(None, [(b"host", b"x")]) is NO_WISHES


@pytest.mark.parametrize("price", ["0.25", 0.25, "0.250000"])
def test_one_price_bounds_both_ways_and_may_be_a_string_or_a_number(price: Any) -> None:
    assert of_body(max_price=price).max_rates() == (250_000, 250_000)
    assert of_headers(max_price=str(price)).max_rates() == (250_000, 250_000)


def test_prices_in_and_out_may_differ() -> None:
    assert of_body(max_price={"in": "0.5", "out": 2}).max_rates() == (500_000, 2_000_000)
    assert of_headers(max_price="in=0.5,out=2").max_rates() == (500_000, 2_000_000)
    assert of_body(max_price={"out": "2"}).max_rates() == (None, 2_000_000)


@pytest.mark.parametrize("cost", ["0.000000001", 1e-9])
def test_the_cost_of_a_call_may_be_bounded_to_the_nano_dollar(cost: Any) -> None:
    assert of_body(max_cost=cost).max_cost_nanos() == 1


def test_zero_is_a_price_and_no_price_is_none() -> None:
    assert of_body(max_price=0, max_cost="0").max_rates() == (0, 0)
    assert of_body(max_cost=0).max_cost_nanos() == 0
    assert of_body(domain="law").max_cost_nanos() is None


@pytest.mark.parametrize(
    "amount",
    [
        *("0.1234567890123", 0.1234567890123, "-1", -1, "NaN", "Infinity", "1e30", 1e300),
        *("1e999999999", "1e-999999999", "9" * 60),
    ],
)
@pytest.mark.parametrize("name", ["max_price", "max_cost"])
def test_an_amount_that_is_too_precise_too_large_or_none_is_refused_by_name(
    name: str, amount: Any
) -> None:
    def read() -> object:
        wishes = of_body(**{name: amount})
        return wishes.max_rates(), wishes.max_cost_nanos()

    with pytest.raises(RequestMalformed, match=rf"broker\.{name}"):
        read()


@pytest.mark.parametrize("region", ["eu", ["eu"]])
def test_a_region_or_several(region: Any) -> None:
    assert of_body(region=region).regions() == {"eu"}
    assert of_headers(region="eu, uk").regions() == {"eu", "uk"}
    assert NO_WISHES.regions() is None


def test_providers_only_ignored_and_in_order() -> None:
    providers = {"only": ["a", "b"], "ignore": ["c"], "order": ["b", "a"]}
    inside = of_body(providers=providers).providers
    outside = of_headers(
        providers_only="a, b", providers_ignore="c", providers_order="b,a"
    ).providers
    assert inside == outside
    assert (inside.only, inside.ignore, inside.order) == (["a", "b"], ["c"], ["b", "a"])


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_has_a_name(preset: str) -> None:
    assert of_body(weights=preset).weighed() == PRESETS[preset]
    assert of_headers(weights=preset).weighed() == PRESETS[preset]


def test_a_preset_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestMalformed, match=r"'best'.*balanced"):
        of_body(weights="best").weighed()


def test_what_a_good_answer_is_worth_is_said_in_place_of_weights() -> None:
    assert of_body(value_usd=0.02).value_nanos() == 20_000_000
    assert of_headers(value_usd="0.02").value_nanos() == 20_000_000
    assert of_body().value_nanos() is None
    for wrong in ({"value_usd": 0}, {"value_usd": -1}, {"value_usd": 1, "weights": "cheap"}):
        with pytest.raises(RequestMalformed, match="value_usd"):
            of_body(**wrong).value_nanos()


def test_of_weights_that_are_given_what_is_not_named_counts_nothing() -> None:
    assert of_body(weights={"cost": 2}).weighed() == Weights(0, 0, 2, 0, 0)
    assert of_headers(weights="cost=2,quality=1").weighed() == Weights(1, 0, 2, 0, 0)
    assert NO_WISHES.weighed() == PRESETS["balanced"]


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"domian": "law"}, "domian"),
        ({"providers": {"olny": []}}, "olny"),
        ({"weights": {"speed": 1}}, "speed"),
        ({"max_price": {"input": 1}}, "input"),
    ],
)
def test_an_unknown_field_is_refused_by_name(wishes: dict[str, Any], field: str) -> None:
    with pytest.raises(UnknownField, match=f"'{field}'"):
        of_body(**wishes)


def test_what_may_stand_in_a_field_of_words_is_told() -> None:
    told = "broker.data_policy: 'deny' is none of any, no_retention, no_training."
    with pytest.raises(RequestMalformed, match=told):
        of_body(data_policy="deny")
    with pytest.raises(RequestMalformed, match=r"cascade\.pay: 'none' is none of both, kept"):
        of_body(cascade={"policy": "auto", "pay": "none"})
    with pytest.raises(UnknownField, match=r"^broker\.providers: there is no field 'olny'"):
        of_body(providers={"olny": []})
    for name, told in (("max_prise", "; was 'max_price' meant?"), ("x" * 100_000, "x'.")):
        with pytest.raises(UnknownField) as caught:
            of_body(**{name: 1})
        assert caught.value.detail.endswith(told)


@pytest.mark.parametrize("name", ["domian", "providers-olny", "call-id"])
def test_an_unknown_header_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnknownField, match=name.removeprefix("providers-").replace("-", "_")):
        read_wishes(None, [(f"x-broker-{name}".encode(), b"x")])


@pytest.mark.parametrize(
    ("wishes", "field"),
    [
        ({"quality_min": 1.5}, "quality_min"),
        ({"quality_min": "high"}, "quality_min"),
        ({"latency_ms_max": 0}, "latency_ms_max"),
        ({"deadline_s": -1}, "deadline_s"),
        ({"domain": ""}, "domain"),
        ({"domain": "x" * 201}, "domain"),
        ({"data_policy": "some"}, "data_policy"),
        ({"weights": {"cost": -1}}, "weights"),
        ({"providers": {"only": "a"}}, "providers"),
        ({"labels": {"a": 1}}, "labels"),
        ({"labels": {str(n): "x" for n in range(51)}}, "labels"),
        ({"region": 3}, "region"),
    ],
)
def test_a_wish_of_a_wrong_type_or_out_of_bounds_is_refused_by_name(
    wishes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RequestMalformed, match=rf"broker\.{field}"):
        of_body(**wishes)


@pytest.mark.parametrize(
    ("name", "text"),
    [("quality_min", "high"), ("deadline_s", "-1"), ("data_policy", "some"), ("domain", "")],
)
def test_a_header_that_makes_no_sense_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(RequestMalformed, match=rf"broker\.{name}"):
        of_headers(**{name: text})


def test_a_header_of_pairs_must_be_one() -> None:
    with pytest.raises(RequestMalformed, match="x-broker-labels: 'team'"):
        of_headers(labels="team")


@pytest.mark.parametrize("raw", [b"[]", b'"law"', b"3", b"null"])
@pytest.mark.parametrize("headers", [[], [(b"x-broker-domain", b"law")]])
def test_wishes_that_are_no_object_are_refused(
    raw: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(RequestMalformed, match="broker"):
        read_wishes(msgspec.Raw(raw), headers)


def test_wishes_that_are_no_json_are_refused() -> None:
    with pytest.raises(RequestMalformed, match="not valid JSON"):
        read_wishes(msgspec.Raw(b'{"domain":}'), [])


def test_the_body_wins_over_the_headers_field_by_field() -> None:
    raw = msgspec.Raw(b'{"domain":"law","quality_min":0.5}')
    both = read_wishes(raw, as_headers(domain="medicine", region="eu", quality_min="0.9"))
    assert (both.domain, both.regions(), both.quality_min) == ("law", {"eu"}, 0.5)


@pytest.mark.parametrize("headers", [[], [(b"x-broker-region", b"eu")]])
def test_a_body_is_read_as_strictly_with_headers_as_without(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(RequestMalformed, match=r"broker\.quality_min"):
        read_wishes(msgspec.Raw(b'{"quality_min":"0.5"}'), headers)


def test_a_tier_is_named_in_the_broker_object_a_header_or_openai_s_own_member() -> None:
    assert of_body(tier="batch").tier is Tier.BATCH
    assert of_headers(tier="flex").tier is Tier.FLEX
    assert in_tier(NO_WISHES, "priority").tier is Tier.PRIORITY
    with pytest.raises(RequestMalformed, match=r"broker\.tier"):
        of_body(tier="gold")


@pytest.mark.parametrize("named", ["auto", "default", None])
def test_openai_s_usual_tiers_are_the_standard_one(named: str | None) -> None:
    assert in_tier(NO_WISHES, named) is NO_WISHES


def test_the_broker_object_wins_over_openai_s_own_member() -> None:
    assert in_tier(of_body(tier="batch"), "priority").tier is Tier.BATCH


def test_a_tier_of_openai_that_there_is_not_here_is_refused() -> None:
    with pytest.raises(RequestMalformed, match="no 'scale' here, only auto, default, flex"):
        in_tier(NO_WISHES, "scale")
