"""`weights: budget` spends a monthly budget evenly, and tells what money was worth by that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.core.money.pacing import VALUE_NANOS_MAX
from broker.embedded.valkey import EmbeddedValkey
from broker.flows.books.pace import EVERY_S, Pacer
from broker.live.room import Live
from broker.store.books.budgets import Budgets, set_budgets
from tests.fakes import decide, endpoint, market, requirements
from tests.integration.gateway.house import Consumer, House, Stall
from tests.integration.gateway.quality.test_recognised import ask

PACED = {"weights": "budget"}
TENSOR = b'{"inputs":[{"name":"INPUT0","shape":[1],"datatype":"FP32","data":[1.0]}]}'


@pytest.fixture(scope="module", autouse=True)
async def _(house: House) -> None:
    topic = Stall(name="acme/topic", model="topic", kind="kserve", upstream="m-1")
    await house.enrol(Stall(name="acme/thrifty"), topic)


async def _limit(house: House, shop: Consumer, month_nanos: int) -> str:
    key_id = shop.key.split("_")[1]
    async with house.engine.begin() as connection:
        await set_budgets(connection, key_id, Budgets(month_nanos=month_nanos))
    return key_id


async def test_a_key_without_a_monthly_budget_is_told_so(house: House) -> None:
    shop = await house.consumer("unlimited")
    body = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}], "broker": PACED}
    refused = await shop.http.post("/v1/chat/completions", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "budget_missing")


async def test_a_call_tells_what_money_was_worth_and_by_whom(house: House) -> None:
    shop = await house.consumer("paced")
    await _limit(house, shop, 500_000_000)
    _, call_id = await ask(shop, "Hello", broker=PACED)
    told = (await house.story(shop, call_id))["requirements"]
    assert told["score_per_usd_by"] == "budget"
    assert told["score_per_usd"] == 1e9 / VALUE_NANOS_MAX, "nothing was spent before"
    _, call_id = await ask(shop, "Hello", broker={"value_usd": "0.5"})
    told = (await house.story(shop, call_id))["requirements"]
    assert (told["score_per_usd"], told["score_per_usd_by"]) == (2.0, "value_usd")
    request = {"model": "auto", "messages": [{"role": "user", "content": "Hello"}]}
    dry = await shop.http.post("/api/route", json={"request": request | {"broker": PACED}})
    assert dry.json()["requirements"]["score_per_usd_by"] == "budget", dry.text


async def test_a_quote_goes_by_the_budget_and_its_call_by_the_quote(house: House) -> None:
    asked = {"task": "chat", "model": "auto", "tokens_in": 300, "tokens_out_max": 16}
    shop = await house.consumer("unquoted")
    refused = await shop.http.post("/api/quotes", json=asked | {"broker": PACED})
    assert (refused.status_code, refused.json()["code"]) == (400, "budget_missing")
    shop = await house.consumer("quoted")
    await _limit(house, shop, 500_000_000)
    made = await shop.http.post("/api/quotes", json=asked | {"broker": PACED})
    assert made.status_code == 201, made.text
    quote_id = made.json()["quote_id"]
    _, call_id = await ask(shop, "Hello", broker={"quote_id": quote_id}, max_tokens=16)
    told = (await house.story(shop, call_id))["requirements"]
    assert told["score_per_usd_by"] == "budget"
    assert told["score_per_usd"] == 1e9 / VALUE_NANOS_MAX


async def test_an_inference_is_paced_as_well(house: House) -> None:
    said, path = {"x-broker-weights": "budget"}, "/v2/models/topic"
    shop = await house.consumer("tensors-unlimited")
    for answer in (
        await shop.http.post(f"{path}/infer", content=TENSOR, headers=said),
        await shop.http.get(f"{path}/ready", headers=said),
    ):
        assert answer.status_code == 400
        assert answer.json()["error"].endswith("[budget_missing]")
    shop = await house.consumer("tensors-paced")
    await _limit(house, shop, 500_000_000)
    served = await shop.http.post(f"{path}/infer", content=TENSOR, headers=said)
    assert served.status_code == 200, served.text
    told = (await house.story(shop, served.headers["x-broker-call-id"]))["requirements"]
    assert told["score_per_usd_by"] == "budget"
    ready = await shop.http.get(f"{path}/ready", headers=said)
    assert ready.status_code == 200, ready.text


async def test_processes_share_a_pace_and_one_goes_on_where_another_stopped(
    house: House, valkey_server: EmbeddedValkey
) -> None:
    shop = await house.consumer("spender")
    key_id = await _limit(house, shop, 1)
    wanted, now = requirements(paced=True), datetime.now(UTC)
    decision = decide(market([endpoint(0), endpoint(1, "acme/large")]))
    here, there = (Live.connect(valkey_server.url, "paced") for _ in range(2))
    try:
        first = Pacer(house.engine, here.paces)
        free = await first.pace(wanted, key_id, now)
        assert free.value_nanos == VALUE_NANOS_MAX
        first.saw(key_id, decision)
        await _limit(house, shop, 0)  # from here on anything is too much
        for _ in range(3):
            now += timedelta(seconds=60 * EVERY_S)
            dear = await first.pace(wanted, key_id, now)
        assert (dear.value_nanos or 0) < 10_000_000
        second = Pacer(house.engine, there.paces)
        assert await second.pace(wanted, key_id, now) == dear
        lone = Live.connect("redis://127.0.0.1:1/0", "paced")
        alone = Pacer(house.engine, lone.paces)
        assert (await alone.pace(wanted, key_id, now)).value_nanos == VALUE_NANOS_MAX
        await lone.close()
    finally:
        await here.close()
        await there.close()
