"""Calls are counted by status, and under way, for whoever scrapes the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import re

import httpx
import pytest

from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

CHAT = "/v1/chat/completions"
BODY = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
_ANSWERED = re.compile(
    r'^broker_calls_answered_total\{kind="openai",status="(\d+)"\} (\d+)', re.MULTILINE
)


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    await house.enrol(Stall(name="acme/small"))
    return house.providers["acme/small"]


async def _answered(http: httpx.AsyncClient) -> dict[int, int]:
    text = (await http.get("/metrics")).text
    return {int(status): int(count) for status, count in _ANSWERED.findall(text)}


async def _in_flight(http: httpx.AsyncClient) -> int:
    text = (await http.get("/metrics")).text
    found = re.search(r"^broker_calls_in_flight (\d+)", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


async def test_calls_are_counted_by_the_status_that_was_told(
    house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    before = await _answered(shop.http)
    await shop.http.post(CHAT, json=BODY)
    await shop.http.post(CHAT, json=BODY | {"stream": True})
    await shop.http.post(CHAT, json=BODY | {"model": "gpt-17"})
    await shop.http.post(CHAT, content=b"nonsense")
    await shop.http.post(CHAT, json=BODY, headers={"authorization": "Bearer sk-none"})
    provider.script = Script(models=("upstream-name",), status=500)
    await shop.http.post("/v1/embeddings", json={"model": "small", "input": "hello"})
    after = await _answered(shop.http)
    counted = {status: after[status] - before.get(status, 0) for status in after}
    assert {status: count for status, count in counted.items() if count} == {
        200: 2,
        400: 1,
        401: 1,
        404: 1,
        502: 1,
    }
    assert await _in_flight(shop.http) == 0


async def test_calls_under_way_are_counted_and_who_leaves_is_too(
    house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    provider.script = Script(models=("upstream-name",), stall=True)
    before = (await _answered(shop.http)).get(499, 0)
    calls = [asyncio.create_task(shop.http.post(CHAT, json=BODY)) for _ in range(3)]

    async def under_way(count: int) -> bool:
        return await _in_flight(house.operator) == count

    await until(lambda: under_way(3))
    for call in calls:
        call.cancel()
    for call in calls:
        with contextlib.suppress(asyncio.CancelledError):
            await call
    await until(lambda: under_way(0))
    assert (await _answered(shop.http))[499] == before + 3
