"""Tiers of service through the door: named either way, billed as named, refused where unpriced."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from provider_sdk.protocol import TokenBand
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "hello"}]
BAND = TokenBand(
    floor_in="0.10",
    list_in="0.50",
    ceiling_in="2.00",
    floor_out="0.30",
    list_out="1.50",
    ceiling_out="6.00",
)
TIERS = {"priority": "2", "flex": "0.5"}


@pytest.fixture(scope="module", autouse=True)
async def market(house: House) -> None:
    """One endpoint prices priority and flex, the other nothing but the usual; neither moves."""
    await house.enrol(
        Stall(name="tiered/chat", endpoint={"price": BAND, "tiers": TIERS}),
        Stall(name="plain/chat"),
    )
    posted = {"scope": "provider", "subject": "tiered", "controller": "posted"}
    assert (await house.operator.post("/api/pricing", json=posted)).status_code == 201

    async def at_list() -> bool:
        listed = (await house.operator.get("/api/prices")).json()["endpoints"]
        (price,) = (each["price"] for each in listed if each["name"] == "tiered/chat")
        return bool(price["price_in_usd"] == "0.50")

    await until(at_list)


async def ask(shop: Consumer, model: str = "tiered/chat", **body: Any) -> httpx.Response:
    told = {"model": model, "messages": MESSAGES, "max_tokens": 16} | body
    return await shop.http.post("/v1/chat/completions", json=told)


@pytest.mark.parametrize(
    ("body", "tier", "price"),
    [
        ({}, None, "in=0.50,out=1.50"),
        ({"service_tier": "auto"}, None, "in=0.50,out=1.50"),
        ({"service_tier": "default"}, None, "in=0.50,out=1.50"),
        ({"service_tier": "flex"}, "flex", "in=0.25,out=0.75"),
        ({"service_tier": "priority"}, "priority", "in=1.00,out=3.00"),
        ({"broker": {"tier": "flex"}}, "flex", "in=0.25,out=0.75"),
        ({"broker": {"tier": "standard"}}, None, "in=0.50,out=1.50"),
    ],
)
async def test_a_call_costs_what_its_tier_costs(
    house: House, shop: Consumer, body: dict[str, Any], tier: str | None, price: str
) -> None:
    answer = await ask(shop, **body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-broker-price"] == price
    assert answer.headers.get("x-broker-tier") == tier
    usage = answer.json()["usage"]
    price_in, price_out = (Decimal(each.partition("=")[2]) for each in price.split(","))
    cost = (usage["prompt_tokens"] * price_in + usage["completion_tokens"] * price_out) / 10**6
    assert Decimal(answer.headers["x-broker-cost-usd"]) == cost
    sent = house.providers["tiered/chat"].work_received[-1]
    assert b"service_tier" not in sent.body
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert story["requirements"].get("tier") == tier


async def test_a_tier_that_nobody_prices_is_refused_and_not_billed_otherwise(
    shop: Consumer,
) -> None:
    for model, body in (
        ("plain/chat", {"service_tier": "flex"}),
        ("tiered/chat", {"broker": {"tier": "batch"}}),
    ):
        answer = await ask(shop, model, **body)
        assert answer.status_code == 404, answer.text
        error = answer.json()["error"]
        assert error["code"] == "tier_unpriced"
        assert error["broker"]["rejected"] == [{"endpoint": model, "reason": "tier_unpriced"}]


async def test_among_several_only_those_that_price_the_tier_serve_it(shop: Consumer) -> None:
    for _ in range(5):
        answer = await ask(shop, "small", service_tier="priority")
        assert answer.headers["x-broker-endpoint"] == "tiered/chat"


async def test_a_service_tier_that_there_is_not_is_refused(shop: Consumer) -> None:
    answer = await ask(shop, service_tier="scale")
    assert answer.status_code == 400
    assert "service_tier" in answer.json()["error"]["message"]


async def test_the_prices_of_tiers_are_shown(shop: Consumer) -> None:
    listed = (await shop.http.get("/api/prices")).json()["endpoints"]
    tiers = {each["name"]: each["tiers"] for each in listed}
    assert tiers["plain/chat"] == {}
    assert {name: each["price_in_usd"] for name, each in tiers["tiered/chat"].items()} == {
        "flex": "0.25",
        "priority": "1.00",
    }


async def test_a_quote_is_made_and_redeemed_in_its_tier(shop: Consumer) -> None:
    told = {"model": "tiered/chat", "messages": MESSAGES, "max_tokens": 16}
    wished = {"request": told | {"service_tier": "flex"}}
    quoted = await shop.http.post("/api/quotes", json=wished)
    assert quoted.status_code == 201, quoted.text
    answer = await ask(shop, broker={"quote_id": quoted.json()["quote_id"]})
    assert answer.headers["x-broker-tier"] == "flex"
    assert answer.headers["x-broker-price"] == "in=0.25,out=0.75"
