"""What is listed between two ticks of the prices is sold at once, at its list price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

CHAT = "/v1/chat/completions"
BODY = {"model": "acme/new", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}


async def _history(shop: Consumer) -> list[tuple[int, str, str]]:
    answer = await shop.http.get("/api/prices/history", params={"endpoint": "acme/new"})
    changes = answer.raise_for_status().json()["changes"]
    told = [(each["version"], each["price"]) for each in changes]
    return [(version, price["price_in_usd"], price["price_out_usd"]) for version, price in told]


async def _market(shop: Consumer) -> tuple[int, dict[str, Any]]:
    told = (await shop.http.get("/api/prices")).json()
    return told["version"], {each["name"]: each for each in told["endpoints"]}


async def test_a_call_before_the_first_tick_pays_the_list_price_that_it_is_told(
    house: House, shop: Consumer
) -> None:
    await house.enrol(Stall(name="acme/old"))
    async with house.database.transaction():
        # As long as nobody can store a book, no tick gives anything a price.
        await house.database.execute("LOCK TABLE price_books IN EXCLUSIVE MODE")
        await house.enrol(Stall(name="acme/new", usd_in="0.70", usd_out="2.00"))
        version, market = await _market(shop)
        assert version > 0
        assert market["acme/new"]["health"] == "ready"
        assert market["acme/new"]["price"] == market["acme/new"]["listed"]
        answer = await shop.http.post(CHAT, json=BODY)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-broker-price"] == "in=0.70,out=2.00"
        assert int(answer.headers["x-broker-price-version"]) == version
        assert await _history(shop) == [(0, "0.70", "2.00")]
    usage = answer.json()["usage"]
    cost = usage["prompt_tokens"] * Decimal("0.70") + usage["completion_tokens"] * Decimal("2.00")
    assert Decimal(answer.headers["x-broker-cost-usd"]) == cost / 10**6
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    (line,) = story["lines"]
    assert (line["price_version"], story["price_version"]) == (version, version)
    assert (line["price"]["price_in_usd"], line["price"]["price_out_usd"]) == ("0.70", "2.00")

    async def ticked() -> bool:
        return len(await _history(shop)) > 1

    await until(ticked)
    assert [each[0] for each in await _history(shop)] == [0, version + 1]
    assert {each[1:] for each in await _history(shop)} == {("0.70", "2.00")}
