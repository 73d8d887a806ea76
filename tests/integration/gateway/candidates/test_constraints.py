"""Each constraint and wish of a caller, from the request to the endpoint that serves it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
import msgspec
import pytest

from broker.store.access.accounts import Role
from provider_sdk.protocol import DataPolicy
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
async def friend(house: House) -> Consumer:
    """Who may see the private endpoint."""
    return await house.consumer("friend")


@pytest.fixture(scope="module", autouse=True)
async def market(house: House, friend: Consumer) -> None:
    """Three of one family, each better in something; one of them is the friend's alone."""
    await house.enrol(
        Stall(
            name="cheap/chat",
            usd_in="0.10",
            usd_out="0.20",
            region="us",
            data_policy=DataPolicy(retains_data=True, trains_on_data=True, retention_days=30),
            endpoint={"quality": 0.3},
        ),
        Stall(
            name="middle/chat",
            usd_in="0.50",
            usd_out="1.50",
            data_policy=DataPolicy(retains_data=True, retention_days=7),
            endpoint={"quality": 0.6},
        ),
        Stall(
            name="dear/chat",
            usd_in="2.00",
            usd_out="6.00",
            region="ch",
            endpoint={"quality": 0.9},
        ),
        Stall(
            name="lexis/law",
            model="law",
            usd_in="1.00",
            usd_out="3.00",
            endpoint={"quality": 0.4, "domains": {"law": 0.98}, "max_output_tokens": 512},
        ),
        Stall(
            name="hidden/chat",
            usd_in="0.01",
            usd_out="0.01",
            endpoint={"visible_to": ["friend"], "quality": 1.0},
        ),
    )


async def _ask(shop: Consumer, model: str = "small", **wishes: Any) -> httpx.Response:
    limit = wishes.pop("max_tokens", 16)
    body = {"model": model, "messages": MESSAGES, "max_tokens": limit, "broker": wishes}
    return await shop.http.post("/v1/chat/completions", json=body)


async def _served_by(shop: Consumer, model: str = "small", **wishes: Any) -> str:
    answer = await _ask(shop, model, **wishes)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-broker-endpoint"]


async def _refused(shop: Consumer, **wishes: Any) -> dict[str, Any]:
    answer = await _ask(shop, **wishes)
    assert answer.status_code == 404, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def _reasons(error: dict[str, Any]) -> dict[str, str]:
    return {each["endpoint"]: each["reason"] for each in error["broker"]["rejected"]}


async def test_the_presets_lead_to_the_cheap_and_to_the_good(shop: Consumer) -> None:
    assert await _served_by(shop, weights="cheap") == "cheap/chat"
    assert await _served_by(shop, weights="quality") == "dear/chat"
    assert await _served_by(shop, weights={"cost": 1}) == "cheap/chat"
    assert await _served_by(shop, weights={"quality": 1}) == "dear/chat"


async def test_a_price_that_nobody_meets_is_refused_with_the_cheapest_that_would_have(
    shop: Consumer,
) -> None:
    error = await _refused(shop, max_price="0.05")
    assert error["code"] == "nothing_within_price"
    assert "cheap/chat" in error["message"]
    assert "0.10" in error["message"]
    cheapest = error["broker"]["cheapest"]
    assert (cheapest["price_in_usd"], cheapest["price_out_usd"]) == ("0.10", "0.20")
    assert set(_reasons(error).values()) == {"rate_too_high"}
    # What is named must really have fitted: with it, the call is served.
    retried = {"in": cheapest["price_in_usd"], "out": cheapest["price_out_usd"]}
    assert await _served_by(shop, max_price=retried) == "cheap/chat"


async def test_the_cheapest_that_is_named_meets_the_other_demands(shop: Consumer) -> None:
    error = await _refused(shop, max_price="0.05", region="ch")
    assert error["broker"]["cheapest"]["endpoint"] == "dear/chat"
    error = await _refused(shop, max_price="0.05", quality_min=0.5)
    assert error["broker"]["cheapest"]["endpoint"] == "middle/chat"


async def test_a_price_bound_holds_for_each_side_alone(shop: Consumer) -> None:
    assert await _served_by(shop, max_price={"in": 0.5}, weights="quality") == "middle/chat"
    assert await _served_by(shop, max_price={"out": "0.20"}, weights="quality") == "cheap/chat"
    assert await _served_by(shop, max_price=6, weights="quality") == "dear/chat"


async def test_a_cost_bound_holds_the_whole_call(shop: Consumer) -> None:
    error = await _refused(shop, max_cost="0.000001")
    assert error["code"] == "nothing_within_price"
    needed = error["broker"]["cheapest"]["ceiling_cost_usd"]
    assert await _served_by(shop, max_cost=needed, weights="quality") == "cheap/chat"
    assert await _served_by(shop, max_cost=1, weights="quality") == "dear/chat"


async def test_quality_region_and_data_policy_are_hard(shop: Consumer) -> None:
    cheap = {"weights": "cheap"}
    assert await _served_by(shop, quality_min=0.5, **cheap) == "middle/chat"
    assert await _served_by(shop, quality_min=0.7, **cheap) == "dear/chat"
    assert await _served_by(shop, region="ch", **cheap) == "dear/chat"
    assert await _served_by(shop, region=["ch", "eu"], **cheap) == "middle/chat"
    assert await _served_by(shop, data_policy="any", **cheap) == "cheap/chat"
    assert await _served_by(shop, data_policy="no_training", **cheap) == "middle/chat"
    assert await _served_by(shop, data_policy="no_retention", **cheap) == "dear/chat"
    error = await _refused(shop, data_policy="no_retention", region="us")
    assert _reasons(error)["cheap/chat"] in ("region", "retains_data")
    error = await _refused(shop, quality_min=0.95)
    assert error["code"] == "nothing_fits"
    assert error["message"] == "No endpoint fits: quality below the minimum (3)."


async def test_providers_are_named_excluded_and_put_in_order(shop: Consumer) -> None:
    only = {"only": ["middle"]}
    assert await _served_by(shop, providers=only, weights="cheap") == "middle/chat"
    ignore = {"ignore": ["cheap", "middle"]}
    assert await _served_by(shop, providers=ignore, weights="cheap") == "dear/chat"
    order = {"order": ["dear", "cheap"]}
    assert await _served_by(shop, providers=order, weights="cheap") == "dear/chat"
    error = await _refused(shop, providers={"only": ["nobody"]})
    assert set(_reasons(error).values()) == {"provider_excluded"}


async def test_auto_takes_the_specialist_of_the_declared_domain(shop: Consumer) -> None:
    assert await _served_by(shop, "auto", domain="law", weights="quality") == "lexis/law"
    elsewhere = await _served_by(shop, "auto", domain="medicine", weights="quality")
    assert elsewhere == "dear/chat"
    assert await _served_by(shop, "auto", domain="law", quality_min=0.95) == "lexis/law"


async def test_an_output_longer_than_an_endpoint_gives_is_not_sent_there(shop: Consumer) -> None:
    answer = await _ask(shop, "law", max_tokens=513)
    assert answer.status_code == 404
    assert _reasons(answer.json()["error"]) == {"lexis/law": "output_too_short"}
    assert await _served_by(shop, "law", max_tokens=512) == "lexis/law"


async def test_latency_is_learned_and_then_demanded(house: House, shop: Consumer) -> None:
    error = await _refused(shop, latency_ms_max=0.001)
    assert set(_reasons(error).values()) == {"too_slow"}
    slow = [house.providers[name] for name in ("cheap/chat", "dear/chat")]
    quick = [each.script for each in slow]
    for each in slow:
        each.script = msgspec.structs.replace(each.script, latency_ms=1_000.0)
    for _ in range(2):
        only = ({"only": [name]} for name in ("cheap", "dear", "middle"))
        await asyncio.gather(*(_served_by(shop, providers=each) for each in only))
    for each, script in zip(slow, quick, strict=True):
        each.script = script
    assert await _served_by(shop, weights={"latency": 1}) == "middle/chat"
    assert await _served_by(shop, weights="quality", latency_ms_max=300) == "middle/chat"


async def test_the_near_best_share_the_calls(house: House, shop: Consumer) -> None:
    await house.enrol(
        Stall(name="twin-a/chat", model="twin"), Stall(name="twin-b/chat", model="twin")
    )
    price_alone = {"cost": 1}
    served = Counter([await _served_by(shop, "twin", weights=price_alone) for _ in range(24)])
    assert set(served) == {"twin-a/chat", "twin-b/chat"}


async def test_a_private_endpoint_exists_for_those_it_was_made_for_alone(
    house: House, shop: Consumer, friend: Consumer
) -> None:
    assert await _served_by(friend, weights="cheap") == "hidden/chat"
    assert await _served_by(friend, "hidden/chat") == "hidden/chat"

    answer = await _ask(shop, "hidden/chat")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert await _served_by(shop, "auto", weights="cheap") == "cheap/chat"
    error = await _refused(shop, max_price="0.005")
    assert "hidden" not in str(error)
    for path in ("/v1/models", "/api/prices"):
        mine, theirs = await shop.http.get(path), await friend.http.get(path)
        assert "hidden/chat" not in mine.text
        assert "hidden/chat" in theirs.text
    asked, served = [(await each.http.get("/api/calls")).json()["calls"] for each in (shop, friend)]
    assert "hidden/chat" not in {call["endpoint"] for call in asked}
    assert "hidden/chat" in {call["endpoint"] for call in served}
    for path in ("/v1/models/hidden/chat", "/api/prices/history?endpoint=hidden/chat"):
        assert (await shop.http.get(path)).status_code == 404
        assert (await friend.http.get(path)).status_code == 200
    rival = house.client(await house.key("cheap", Role.PROVIDER))
    await until(lambda: _is_known(rival))
    assert "hidden/chat" not in (await rival.get("/v1/models")).text
    assert "hidden/chat" not in (await rival.get("/api/prices")).text


async def _is_known(http: httpx.AsyncClient) -> bool:
    return (await http.get("/v1/models")).status_code == 200
