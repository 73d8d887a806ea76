"""Refusals and failures as the unmodified `openai` package raises them, and that it tries once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from broker.store.access.accounts import Role
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

MESSAGES: Any = [{"role": "user", "content": "hello"}]
GOOD = Script(models=("upstream-name",))


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    """The only one who serves the family `small`, and takes two calls at once."""
    await house.enrol(Stall(name="acme/small", capacity=1))
    return house.providers["acme/small"]


@pytest.fixture(autouse=True)
async def healed(house: House, provider: ScriptedProvider) -> None:
    """A provider that is well, and counted as such."""
    provider.script = GOOD
    provider.received.clear()
    provider.calls = 0


@pytest.fixture
async def client(house: House, shop: Consumer) -> AsyncIterator[AsyncOpenAI]:
    """A client as it comes: it tries twice more where it is not told to leave it."""
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=shop.key, timeout=20.0) as client:
        yield client


def _ask(client: AsyncOpenAI, **changes: Any) -> Any:
    return client.chat.completions.create(**{"model": "small", "messages": MESSAGES} | changes)


async def test_the_id_of_a_call_is_its_request_id_in_answers_and_errors(
    client: AsyncOpenAI, house: House, shop: Consumer
) -> None:
    answer = await _ask(client)
    assert (await house.story(shop, answer._request_id))["status"] == 200
    with pytest.raises(openai.NotFoundError) as caught:
        await _ask(client, extra_body={"broker": {"region": "moon"}})
    assert caught.value.request_id is not None
    assert (await house.story(shop, caught.value.request_id))["status"] == 404


async def test_who_asks_for_responses_is_told_to_ask_by_chat_completions(
    client: AsyncOpenAI,
) -> None:
    with pytest.raises(openai.NotFoundError, match="Set the client to chat completions"):
        await client.responses.create(model="auto", input="hello")


@pytest.mark.parametrize("base", ["", "/", "//v1", "/v1//"])
async def test_a_base_url_without_its_end_or_with_slashes_too_many_serves(
    house: House, shop: Consumer, base: str
) -> None:
    async with AsyncOpenAI(base_url=house.url + base, api_key=shop.key, timeout=20.0) as client:
        answer = await _ask(client)
        assert (await house.story(shop, answer._request_id))["status"] == 200
        assert (await client.models.retrieve("acme/small")).id == "acme/small"
        with pytest.raises(openai.NotFoundError, match="Set the client to chat completions"):
            await client.responses.create(model="auto", input="hello")


@pytest.mark.parametrize("base", ["/v1/v1", "/api/v1", "/openai/deployments/small"])
async def test_a_base_url_that_leads_elsewhere_is_told_how_it_ends(
    house: House, shop: Consumer, base: str
) -> None:
    async with AsyncOpenAI(base_url=house.url + base, api_key=shop.key, timeout=20.0) as client:
        with pytest.raises(openai.NotFoundError, match="the broker's address and /v1, no more"):
            await _ask(client)


async def test_a_page_of_any_origin_may_read_what_it_is_told(
    house: House, shop: Consumer, client: AsyncOpenAI
) -> None:
    page = {"origin": "https://shop.example"}
    asking = {"access-control-request-method": "POST", "access-control-request-headers": "x-a"}
    allowed = await house.client(None).options("/v1/chat/completions", headers=page | asking)
    assert allowed.status_code == 200
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    whole = await client.chat.completions.with_raw_response.create(
        model="small", messages=MESSAGES, extra_headers=page
    )
    stream = await client.chat.completions.with_raw_response.create(
        model="small", messages=MESSAGES, stream=True, extra_headers=page
    )
    refused = await shop.http.post("/v1/completions", headers=page)
    assert refused.status_code == 400
    for answer in (whole, stream, refused):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-expose-headers"] == "*"
    elsewhere = await shop.http.get("/api/balance", headers=page)
    assert elsewhere.status_code == 200
    assert "access-control-allow-origin" not in elsewhere.headers


async def test_a_wrong_key_is_an_authentication_error(house: House) -> None:
    def ask(key: str) -> openai.AuthenticationError:
        with OpenAI(base_url=f"{house.url}/v1", api_key=key, timeout=20.0) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.chat.completions.create(model="small", messages=MESSAGES)
            return caught.value

    for key in ("bk_nobody_nothing", "sk-of-another-house"):
        error = await asyncio.to_thread(ask, key)
        assert error.status_code == 401
        assert error.code == "invalid_api_key"
        assert error.type == "authentication_error"


async def test_a_providers_key_may_look_but_not_buy(house: House) -> None:
    key = await house.key("acme", Role.PROVIDER)
    http = house.client(key)
    await until(lambda: _is_known(http))
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=key, timeout=20.0) as client:
        with pytest.raises(openai.PermissionDeniedError, match="key of a provider"):
            await _ask(client)


async def _is_known(http: Any) -> bool:
    return bool((await http.get("/v1/models")).status_code == 200)


async def test_an_unknown_model_is_not_found_and_says_where_to_look(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="GET /v1/models") as caught:
        await _ask(client, model="gpt-17")
    assert caught.value.code == "model_not_found"


async def test_what_makes_no_sense_is_a_bad_request_that_names_the_field(
    client: AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="'max_prise'") as caught:
        await _ask(client, extra_body={"broker": {"max_prise": 1}})
    assert caught.value.code == "unknown_field"
    with pytest.raises(openai.BadRequestError, match="quality_min"):
        await _ask(client, extra_body={"broker": {"quality_min": "high"}})
    with pytest.raises(openai.BadRequestError, match="preset 'cheapest'"):
        await _ask(client, extra_body={"broker": {"weights": "cheapest"}})


async def test_what_the_provider_holds_for_wrong_is_passed_on_and_tried_once(
    client: AsyncOpenAI, provider: ScriptedProvider
) -> None:
    provider.script = Script(models=("upstream-name",), status=422, body=None)
    with pytest.raises(openai.UnprocessableEntityError, match="scripted failure") as caught:
        await _ask(client)
    assert caught.value.code == "provider_refused"
    assert provider.calls == 1


async def test_without_money_there_is_a_402_and_no_byte_goes_upstream(
    house: House, provider: ScriptedProvider
) -> None:
    poor = await house.consumer("poor", usd=0)
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=poor.key, timeout=20.0) as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await _ask(client)
        assert caught.value.status_code == 402
        assert caught.value.code == "insufficient_balance"
    story = await house.story(poor, caught.value.response.headers["x-broker-call-id"])
    assert (story["status"], story["attempts"], story["lines"]) == (402, [], [])
    assert provider.calls == 0


async def test_when_all_providers_failed_there_is_one_502_with_the_attempts(
    client: AsyncOpenAI, house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    provider.script = Script(models=("upstream-name",), malformed_json=True)
    with pytest.raises(openai.InternalServerError) as caught:
        await _ask(client)
    error: Any = caught.value
    assert error.status_code == 502
    assert error.response.headers["x-should-retry"] == "false"
    attempts = error.body["broker"]["attempts"]
    assert {each["outcome"] for each in attempts} == {"malformed"}
    assert provider.calls == len(attempts), "the client left it at one call"
    story = await house.story(shop, error.response.headers["x-broker-call-id"])
    assert (story["code"], len(story["attempts"])) == ("all_providers_failed", len(attempts))


async def test_a_passed_deadline_is_one_504(
    client: AsyncOpenAI, provider: ScriptedProvider
) -> None:
    provider.script = Script(models=("upstream-name",), stall=True)
    with pytest.raises(openai.InternalServerError) as caught:
        await _ask(client, extra_body={"broker": {"deadline_s": 0.3}})
    assert caught.value.status_code == 504
    assert caught.value.code == "deadline_passed"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert provider.calls == 1
    await until(lambda: provider.cancelled == 1)


async def test_a_full_market_is_a_429_that_may_be_tried_again(
    client: AsyncOpenAI, house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    provider.script = Script(models=("upstream-name",), latency_ms=60_000)
    body = {"model": "small", "messages": MESSAGES}
    filling = [
        asyncio.create_task(shop.http.post("/v1/chat/completions", json=body)) for _ in range(2)
    ]
    await until(lambda: provider.in_flight == 2)
    try:
        with pytest.raises(openai.RateLimitError) as caught:
            await _ask(client.with_options(max_retries=0))
        assert caught.value.code == "providers_full"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert "x-should-retry" not in caught.value.response.headers
    finally:
        for task in filling:
            task.cancel()
        await asyncio.gather(*filling, return_exceptions=True)
    await until(lambda: provider.in_flight == 0)


async def test_a_key_has_its_own_most_calls_at_once(
    house: House, provider: ScriptedProvider
) -> None:
    narrow = await house.consumer("narrow", calls_max=1)
    provider.script = Script(models=("upstream-name",), latency_ms=60_000)
    body = {"model": "small", "messages": MESSAGES}
    filling = asyncio.create_task(narrow.http.post("/v1/chat/completions", json=body))
    await until(lambda: provider.in_flight == 1)
    try:
        answer = await narrow.http.post("/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "key_concurrency")
        assert answer.headers["retry-after"] == "1"
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
    await until(lambda: provider.in_flight == 0)


async def test_a_stream_that_breaks_off_raises_in_the_client_and_what_came_is_charged(
    client: AsyncOpenAI, house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    provider.script = Script(models=("upstream-name",), cut_after_chunks=4)
    stream = await _ask(client, stream=True)
    texts: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            texts.extend([chunk.choices[0].delta.content or ""])

    with pytest.raises(openai.APIError, match="broke off"):
        await read()
    assert sum(bool(text) for text in texts) == 3
    story = await house.story(shop, stream.response.headers["x-broker-call-id"])
    assert story["code"] == "provider_cut_off"
    assert 0 < story["tokens_out"] <= len("".join(texts)) + 8
    assert [line["charge_usd"] for line in story["lines"]] == [story["charge_usd"]]


async def test_nothing_is_charged_for_what_failed(
    client: AsyncOpenAI, house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    async def balance() -> str:
        await house.let_go()
        told = (await shop.http.get("/api/balance")).json()
        assert told.keys() >= {"available_usd"}, told
        available: str = told["available_usd"]
        return available

    before = await balance()
    for script in (Script(status=500), Script(reset=True), Script(empty=True)):
        provider.script = Script(
            models=("upstream-name",), status=script.status, reset=script.reset, empty=script.empty
        )
        with pytest.raises(openai.APIStatusError):
            await _ask(client)
    assert await balance() == before
