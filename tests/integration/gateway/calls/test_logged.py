"""Calls that end in unusual ways are in the call log all the same."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from broker.store import ledger
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

CHAT = "/v1/chat/completions"
BODY = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    await house.enrol(Stall(name="acme/small"))
    return house.providers["acme/small"]


async def _outlive_its_hold(
    house: House, shop: Consumer, provider: ScriptedProvider, **more: Any
) -> httpx.Response:
    """A call whose hold is swept away while its provider works."""
    provider.script = Script(models=("upstream-name",), ttft_ms=500)
    calling = asyncio.create_task(shop.http.post(CHAT, json=BODY | more))
    await until(lambda: provider.in_flight == 1)
    await house.database.execute("UPDATE open_holds SET expires_at = now()")
    assert await ledger.expire_holds(house.database, datetime.now(UTC), 10) == 1
    return await calling


async def test_a_call_that_outlived_its_hold_costs_nothing_and_is_not_tried_again(
    house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    before = (await shop.http.get("/api/balance")).json()
    answer = await _outlive_its_hold(house, shop, provider)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "hold_expired")
    assert answer.headers["x-should-retry"] == "false"
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert (story["status"], story["code"]) == (503, "hold_expired")
    assert Decimal(story["charge_usd"]) == 0
    assert (await shop.http.get("/api/balance")).json() == before


async def test_a_stream_that_outlived_its_hold_ends_in_an_error_and_is_logged(
    house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    answer = await _outlive_its_hold(house, shop, provider, stream=True)
    assert answer.status_code == 200
    assert '"hold_expired"' in answer.text
    assert "[DONE]" not in answer.text
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert (story["status"], story["code"]) == (503, "hold_expired")
    assert Decimal(story["charge_usd"]) == 0


async def test_a_call_that_outlived_its_hold_and_its_caller_is_logged_too(
    house: House,
    shop: Consumer,
    provider: ScriptedProvider,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expired = "SELECT count(*) FROM calls WHERE code = 'hold_expired'"
    before = await house.database.fetchval(expired)
    provider.script = Script(models=("upstream-name",), stall=True)
    calling = asyncio.create_task(shop.http.post(CHAT, json=BODY))
    await until(lambda: provider.in_flight == 1)
    await house.database.execute("UPDATE open_holds SET expires_at = now()")
    assert await ledger.expire_holds(house.database, datetime.now(UTC), 10) == 1
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)

    async def logged() -> bool:
        return bool(await house.database.fetchval(expired) == before + 1)

    await until(logged)
    gc.collect()
    assert "never retrieved" not in caplog.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, BODY | {"model": "gpt-17"}),
        ("/v1/embeddings", {"model": "gpt-17", "input": "hello"}),
        ("/v2/models/gpt-17/infer", {"inputs": []}),
    ],
)
async def test_a_call_of_an_unknown_model_is_logged(
    house: House, shop: Consumer, provider: ScriptedProvider, path: str, body: dict[str, Any]
) -> None:
    answer = await shop.http.post(path, json=body)
    assert answer.status_code == 404
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert (story["status"], story["code"], story["model"]) == (404, "model_not_found", "gpt-17")
    assert (story["candidates"], story["rejected"], story["attempts"]) == ([], [], [])
