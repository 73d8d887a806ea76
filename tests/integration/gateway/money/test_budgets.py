"""Budgets of keys, as those who call with them meet them."""

from __future__ import annotations

import asyncio

import pytest

from broker.store.books.budgets import Budgets, set_budgets
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

CHAT = "/v1/chat/completions"
BODY = {
    "model": "acme/thrifty",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 9,
}


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    await house.enrol(Stall(name="acme/thrifty"))
    return house.providers["acme/thrifty"]


async def _limit(house: House, shop: Consumer, limits: Budgets) -> None:
    async with house.engine.begin() as connection:
        await set_budgets(connection, shop.key.split("_")[1], limits)


async def _served(house: House, shop: Consumer) -> tuple[int, int]:
    """Make a call; return what it held and what it cost."""
    answer = await shop.http.post(CHAT, json=BODY)
    assert answer.status_code == 200
    return await house.database.fetchrow(
        "SELECT hold_nanos, charge_nanos FROM settlements ORDER BY settled_at DESC LIMIT 1"
    )


async def test_a_first_budget_refuses_the_very_next_call_by_name(
    house: House, provider: ScriptedProvider
) -> None:
    shop = await house.consumer("thrift-1")
    held, spent = await _served(house, shop)
    await _limit(house, shop, Budgets(day_nanos=spent + held // 2))
    answer = await shop.http.post(CHAT, json=BODY)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (402, "budget_exceeded")
    assert error["broker"]["budget"] == "day"
    assert error["broker"]["held_usd"] == "0.00"
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert (story["status"], story["code"]) == (402, "budget_exceeded")
    await _limit(house, shop, Budgets(day_nanos=spent + 2 * held))
    assert (await shop.http.post(CHAT, json=BODY)).status_code == 200


async def test_a_call_waits_for_one_under_way_up_to_its_deadline(
    house: House, provider: ScriptedProvider
) -> None:
    shop = await house.consumer("thrift-2")
    held, spent = await _served(house, shop)
    assert 3 * spent < held, "so that the second fits when the first is charged"
    await _limit(house, shop, Budgets(total_nanos=spent + held + 2 * held // 3))
    before = provider.calls
    provider.script = Script(models=("upstream-name",), ttft_ms=1_500)
    first = asyncio.create_task(shop.http.post(CHAT, json=BODY))
    await until(lambda: provider.in_flight == 1)
    second = asyncio.create_task(shop.http.post(CHAT, json=BODY))
    hasty = await shop.http.post(CHAT, json=BODY | {"broker": {"deadline_s": 0.3}})
    assert (hasty.status_code, hasty.json()["error"]["code"]) == (402, "budget_held")
    assert provider.calls == before + 1, "only calls with a hold reach a provider"
    assert [(await each).status_code for each in (first, second)] == [200, 200]
