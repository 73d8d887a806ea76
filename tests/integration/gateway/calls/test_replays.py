"""Calls sent again under their `Idempotency-Key`: run once, charged once, answered alike."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from broker.store.calls import answers
from broker.store.sealing import Sealer
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import REPLAY_BYTES_MAX, Consumer, House, Stall
from tests.waiting import until

CHAT = "/v1/chat/completions"
INFER = "/v2/models/tensors/infer"
BODY = {"model": "small", "messages": [{"role": "user", "content": "hello"}]}
STREAM = BODY | {"stream": True}
GOOD = Script(models=("upstream-name",))
SLOW = Script(models=("upstream-name",), ttft_ms=600)


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    await house.enrol(
        Stall(name="acme/small"), Stall(name="acme/tensors", kind="kserve", model="tensors")
    )
    return house.providers["acme/small"]


@pytest.fixture(autouse=True)
def healed(provider: ScriptedProvider) -> None:
    provider.script = GOOD
    provider.calls = 0


@pytest.fixture(scope="module")
async def keeper(house: House, shop: Consumer) -> Consumer:
    """The same account with a key that opted in to have answers kept."""
    return await house.consumer("shop", usd=0, content_kept="replay")


@pytest.fixture
def key() -> Iterator[dict[str, str]]:
    """A header that no test had before."""
    return {"idempotency-key": f"order-{uuid4()}"}


async def spent(consumer: Consumer) -> Decimal:
    balance = (await consumer.http.get("/api/balance")).json()
    return -Decimal(balance["posted_usd"])


def told(answer: httpx.Response) -> tuple[str, str]:
    """Which call it was and what it cost."""
    return answer.headers["x-broker-call-id"], answer.headers["x-broker-cost-usd"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, BODY),
        ("/v1/completions", {"model": "small", "prompt": "hello"}),
        ("/v1/embeddings", {"model": "small", "input": "hello"}),
    ],
)
async def test_a_kept_answer_is_given_again_and_charged_once(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str], path: str, body: Any
) -> None:
    first = await keeper.http.post(path, json=body, headers=key)
    assert first.status_code == 200
    assert "x-broker-replayed" not in first.headers
    before = await spent(keeper)
    again = await keeper.http.post(path, json=body, headers=key)
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers["x-broker-replayed"] == "true"
    assert told(again) == told(first)
    same = ("content-type", "x-broker-endpoint", "x-broker-price", "x-broker-price-version")
    assert [again.headers[each] for each in same] == [first.headers[each] for each in same]
    assert await spent(keeper) == before
    assert provider.calls == 1


async def test_a_kept_stream_is_given_again_to_the_byte(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    body = STREAM | {"stream_options": {"include_usage": True}}
    first = await keeper.http.post(CHAT, json=body, headers=key)
    before = await spent(keeper)
    again = await keeper.http.post(CHAT, json=body, headers=key)
    assert again.content == first.content
    assert again.content.endswith(b"data: [DONE]\n\n")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-broker-replayed"] == "true"
    told_at_the_end = json.loads(first.text.split("\n\n")[-3].removeprefix("data: "))["broker"]
    assert told(again) == (told_at_the_end["call_id"], told_at_the_end["cost_usd"])
    assert await spent(keeper) == before
    assert provider.calls == 1


async def test_the_openai_package_reads_a_replayed_stream_like_the_first(
    house: House, keeper: Consumer, key: dict[str, str]
) -> None:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=keeper.key) as client:

        async def listen() -> list[Any]:
            asked: Any = {"model": "small", "messages": BODY["messages"], "stream": True}
            stream = await client.chat.completions.create(**asked, extra_headers=key)
            return [chunk.model_dump() async for chunk in stream]

        assert await listen() == await listen()


async def test_an_inference_is_given_again_with_its_binary_tensors(
    house: House, keeper: Consumer, key: dict[str, str]
) -> None:
    tensor = {"name": "INPUT0", "datatype": "INT32", "shape": [1, 2], "data": [1, 2]}
    body = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    first = await keeper.http.post(INFER, json=body, headers=key)
    again = await keeper.http.post(INFER, json=body, headers=key)
    assert first.status_code == again.status_code == 200
    assert again.content == first.content
    assert again.headers["x-broker-replayed"] == "true"
    for name in ("content-type", "inference-header-content-length"):
        assert again.headers.get(name) == first.headers.get(name)
    assert house.providers["acme/tensors"].calls == 1


@pytest.mark.parametrize("body", [BODY, STREAM])
async def test_without_opting_in_a_replay_is_told_that_the_call_was_served_and_charged(
    house: House,
    shop: Consumer,
    provider: ScriptedProvider,
    key: dict[str, str],
    body: dict[str, Any],
) -> None:
    first = await shop.http.post(CHAT, json=body, headers=key)
    before = await spent(shop)
    again = await shop.http.post(CHAT, json=body, headers=key)
    assert again.status_code == 409
    error = again.json()["error"]
    assert error["code"] == "already_served"
    assert again.headers["x-should-retry"] == "false"
    assert again.headers["x-broker-replayed"] == "true"
    call_id, cost = told(again)
    assert call_id == first.headers["x-broker-call-id"]
    assert error["broker"] == {"call_id": call_id, "cost_usd": cost, "ended": "served"}
    assert Decimal(cost) == Decimal((await house.story(shop, call_id))["charge_usd"]) > 0
    assert await spent(shop) == before
    assert provider.calls == 1
    assert await house.database.fetchval("SELECT count(*) FROM stored_answers") == await _kept(
        house, other_than=call_id
    )


async def _kept(house: House, *, other_than: str) -> int:
    query = "SELECT count(*) FROM stored_answers WHERE call_id <> $1"
    count: int = await house.database.fetchval(query, UUID(other_than))
    return count


async def test_a_client_library_does_not_try_a_served_call_again(
    house: House, shop: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=shop.key) as client:
        asked: Any = {"model": "small", "messages": BODY["messages"], "extra_headers": key}
        await client.chat.completions.create(**asked)
        with pytest.raises(openai.ConflictError, match="was served before"):
            await client.chat.completions.create(**asked)
    assert provider.calls == 1


async def test_what_a_call_forbids_to_retain_is_not_kept(
    keeper: Consumer, key: dict[str, str]
) -> None:
    body = BODY | {"broker": {"data_policy": "no_retention"}}
    assert (await keeper.http.post(CHAT, json=body, headers=key)).status_code == 200
    again = await keeper.http.post(CHAT, json=body, headers=key)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_served")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_too_long_is_not_kept(
    house: House, keeper: Consumer, provider: ScriptedProvider, key: dict[str, str], stream: bool
) -> None:
    provider.script = Script(models=("upstream-name",), output_tokens=4_000)
    body = BODY | {"stream": stream, "max_tokens": 4_000}
    first = await keeper.http.post(CHAT, json=body, headers=key)
    assert len(first.content) > REPLAY_BYTES_MAX
    again = await keeper.http.post(CHAT, json=body, headers=key)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_served")


@pytest.mark.parametrize("change", ["body", "path", "wish", "tensor length"])
async def test_the_same_key_for_another_request_is_a_conflict(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str], change: str
) -> None:
    prompt = {"model": "small", "messages": BODY["messages"], "prompt": "hello"}
    await keeper.http.post(CHAT, json=prompt, headers=key)
    asked: dict[str, Any] = {
        "body": {"url": CHAT, "json": prompt | {"max_tokens": 5}},
        "path": {"url": "/v1/completions", "json": prompt},
        "wish": {"url": CHAT, "json": prompt, "headers": key | {"x-broker-region": "eu"}},
        "tensor length": {
            "url": CHAT,
            "json": prompt,
            "headers": key | {"inference-header-content-length": "7"},
        },
    }[change]
    answer = await keeper.http.post(**({"headers": key} | asked))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_conflict")
    assert answer.headers["x-should-retry"] == "false"
    assert provider.calls == 1


async def test_a_key_stands_for_one_request_of_its_account_wherever_it_is_sent(
    house: House, keeper: Consumer, key: dict[str, str]
) -> None:
    assert (await keeper.http.post(CHAT, json=BODY, headers=key)).status_code == 200
    rival = await house.consumer("rival")
    theirs = await rival.http.post(CHAT, json=BODY, headers=key)
    assert theirs.status_code == 200
    assert "x-broker-replayed" not in theirs.headers


@pytest.mark.parametrize("bad", ["", "x" * 256, "tab\tin"])
async def test_a_key_that_is_none_is_refused(keeper: Consumer, bad: str) -> None:
    answer = await keeper.http.post(CHAT, json=BODY, headers={"idempotency-key": bad})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request_malformed")


async def test_a_replay_waits_for_the_first_and_gets_its_answer(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    provider.script = SLOW
    sent = [asyncio.create_task(keeper.http.post(CHAT, json=BODY, headers=key)) for _ in range(8)]
    received = await asyncio.gather(*sent)
    assert {each.status_code for each in received} == {200}
    assert len({each.content for each in received}) == 1
    assert sum("x-broker-replayed" in each.headers for each in received) == 7
    assert len({told(each) for each in received}) == 1
    assert provider.calls == 1


async def test_a_kept_answer_is_told_to_no_other_key_of_the_account(
    house: House, keeper: Consumer, key: dict[str, str]
) -> None:
    other = await house.consumer("shop", usd=0, content_kept="replay")
    first = await keeper.http.post(CHAT, json=BODY, headers=key)
    before = await spent(keeper)
    foreign = await other.http.post(CHAT, json=BODY, headers=key)
    error = foreign.json()["error"]
    assert (foreign.status_code, error["code"]) == (409, "already_served")
    assert "the key alone that asked" in error["message"]
    assert told(foreign) == told(first)
    assert await spent(keeper) == before


async def test_the_rotated_key_is_told_what_it_asked_for_with_its_former_secret(
    house: House, key: dict[str, str]
) -> None:
    keeps = await house.consumer("shop", usd=0, content_kept="replay")
    first = await keeps.http.post(CHAT, json=BODY, headers=key)
    place = f"/api/keys/{keeps.key.split('_')[1]}/rotate"
    rotated = await keeps.http.post(place, json={"overlap_s": 0})
    assert rotated.status_code == 201, rotated.text
    successor = house.client(rotated.json()["key"])

    async def replayed() -> bool:
        again = await successor.post(CHAT, json=BODY, headers=key)
        return again.status_code == 200 and again.content == first.content

    await until(replayed)


async def test_who_waits_for_the_first_answer_takes_no_place_of_its_key(
    house: House, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    narrow = await house.consumer("shop", usd=0, content_kept="replay", calls_max=1)
    provider.script = SLOW
    first = asyncio.create_task(narrow.http.post(CHAT, json=BODY, headers=key))
    await until(lambda: _is_called(provider))
    waiting = [
        asyncio.create_task(narrow.http.post(CHAT, json=BODY, headers=key)) for _ in range(3)
    ]
    other = await narrow.http.post(CHAT, json=BODY, headers={"idempotency-key": f"{uuid4()}"})
    assert (other.status_code, other.json()["error"]["code"]) == (429, "key_concurrency")
    answers = [await each for each in (first, *waiting)]
    assert {(each.status_code, each.content) for each in answers} == {(200, answers[0].content)}
    provider.script = GOOD
    plain = await narrow.http.post(CHAT, json=BODY)
    assert plain.status_code == 200, "every place was given back"


async def _is_called(provider: ScriptedProvider) -> bool:
    return provider.calls > 0


async def test_a_replay_may_choose_not_to_wait(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    provider.script = SLOW
    first = asyncio.create_task(keeper.http.post(CHAT, json=BODY, headers=key))
    await until(lambda: provider.in_flight == 1)
    refusing = key | {"x-broker-on-running": "refuse"}
    refused = await keeper.http.post(CHAT, json=BODY, headers=refusing)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "idempotency_running")
    assert refused.headers["x-broker-call-id"] == (await first).headers["x-broker-call-id"]
    again = await keeper.http.post(CHAT, json=BODY, headers=refusing)
    assert again.headers["x-broker-replayed"] == "true", "how to wait is no part of the request"
    misspelt = await keeper.http.post(CHAT, json=BODY, headers=key | {"x-broker-on-running": "x"})
    assert misspelt.status_code == 400


async def test_a_replay_waits_no_longer_than_its_own_deadline(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    provider.script = SLOW
    first = asyncio.create_task(keeper.http.post(CHAT, json=BODY, headers=key))
    await until(lambda: provider.in_flight == 1)
    hasty = key | {"x-broker-deadline-s": "0.1"}
    waited = await keeper.http.post(CHAT, json=BODY, headers=hasty)
    assert (waited.status_code, waited.json()["error"]["code"]) == (409, "idempotency_running")
    assert (await first).status_code == 200
    again = await keeper.http.post(CHAT, json=BODY, headers=hasty)
    assert again.headers["x-broker-replayed"] == "true", "how long to wait is no part of it either"


async def test_who_waits_is_served_when_the_first_fails(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    failing = Script(models=("upstream-name",), status=422, latency_ms=400)
    provider.script = Script(models=("upstream-name",), sequence=(failing,))
    first = asyncio.create_task(keeper.http.post(CHAT, json=BODY, headers=key))
    await until(lambda: provider.in_flight == 1)
    second = await keeper.http.post(CHAT, json=BODY, headers=key)
    assert (await first).status_code == 422
    assert (second.status_code, "x-broker-replayed" in second.headers) == (200, False)


@pytest.mark.parametrize(
    "script",
    [
        Script(models=("upstream-name",), status=500),
        Script(models=("upstream-name",), status=422),
        Script(models=("upstream-name",), malformed_sse=True, malformed_json=True),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_failed_uncharged_may_be_sent_again(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str], script: Script, stream: bool
) -> None:
    provider.script = script
    body = BODY | {"stream": stream}
    failed = await keeper.http.post(CHAT, json=body, headers=key)
    assert failed.status_code in (422, 502)
    provider.script = GOOD
    answer = await keeper.http.post(CHAT, json=body | {"max_tokens": 9}, headers=key)
    assert (answer.status_code, "x-broker-replayed" in answer.headers) == (200, False)


async def test_a_call_that_was_refused_leaves_its_key_for_another_body(
    house: House, key: dict[str, str]
) -> None:
    poor = await house.consumer("poor", usd=0)
    for body, status in ((BODY, 402), (BODY | {"model": "gpt-17"}, 404), (BODY, 402)):
        refused = await poor.http.post(CHAT, json=body, headers=key)
        assert refused.status_code == status
    rows = "SELECT count(*) FROM idempotency_keys WHERE key = $1"
    assert await house.database.fetchval(rows, key["idempotency-key"]) == 0


async def test_a_stream_that_broke_off_was_charged_and_is_not_served_again(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    provider.script = Script(models=("upstream-name",), cut_after_chunks=6)
    first = await keeper.http.post(CHAT, json=STREAM, headers=key)
    assert '"provider_cut_off"' in first.text
    provider.script = GOOD
    again = await keeper.http.post(CHAT, json=STREAM, headers=key)
    assert again.status_code == 409
    assert again.json()["error"]["broker"]["ended"] == "provider_cut_off"


async def test_a_stream_whose_caller_left_midway_is_not_served_again(
    house: House, keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    provider.script = Script(models=("upstream-name",), tokens_per_s=30.0, output_tokens=500)
    body = STREAM | {"max_tokens": 500}
    async with keeper.http.stream("POST", CHAT, json=body, headers=key) as stream:
        call_id = stream.headers["x-broker-call-id"]
        async for _ in stream.aiter_raw():
            break
    await until(lambda: provider.in_flight == 0)
    provider.script = GOOD
    again = await keeper.http.post(CHAT, json=body, headers=key)
    assert again.status_code == 409
    assert again.json()["error"]["broker"]["ended"] == "caller_left"
    assert told(again)[0] == call_id
    assert Decimal(told(again)[1]) > 0


async def test_a_call_whose_caller_left_before_any_answer_may_be_sent_again(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    provider.script = Script(models=("upstream-name",), stall=True)
    first = asyncio.create_task(keeper.http.post(CHAT, json=BODY, headers=key))
    await until(lambda: provider.in_flight == 1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: provider.in_flight == 0)
    provider.script = GOOD
    again = await keeper.http.post(CHAT, json=BODY, headers=key)
    assert (again.status_code, "x-broker-replayed" in again.headers) == (200, False)


async def test_who_leaves_while_it_waits_takes_nothing_along(
    keeper: Consumer, provider: ScriptedProvider, key: dict[str, str]
) -> None:
    provider.script = SLOW
    first = asyncio.create_task(keeper.http.post(CHAT, json=BODY, headers=key))
    await until(lambda: provider.in_flight == 1)
    waiting = asyncio.create_task(keeper.http.post(CHAT, json=BODY, headers=key))
    await asyncio.sleep(0.1)
    waiting.cancel()
    assert (await first).status_code == 200
    again = await keeper.http.post(CHAT, json=BODY, headers=key)
    assert again.headers["x-broker-replayed"] == "true"


async def test_a_kept_answer_is_sealed_and_its_owner_may_delete_it(
    house: House, keeper: Consumer, key: dict[str, str]
) -> None:
    first = await keeper.http.post(CHAT, json=BODY, headers=key)
    call_id = first.headers["x-broker-call-id"]
    text = first.json()["choices"][0]["message"]["content"]
    row = await house.database.fetchrow(
        "SELECT * FROM stored_answers WHERE call_id = $1", UUID(call_id)
    )
    assert row is not None
    assert text.encode() not in row["sealed"]
    assert 0 < (row["expires_at"] - row["created_at"]).total_seconds() <= 86_400
    kept = await answers.find(house.database, UUID(call_id), Sealer("ab" * 32), row["created_at"])
    assert kept is not None
    assert kept.body == first.content
    assert (
        await answers.find(house.database, UUID(call_id), Sealer("ab" * 32), row["expires_at"])
        is None
    )

    rival = await house.consumer("rival")
    path = f"/api/calls/{call_id}/content"
    assert (await rival.http.delete(path)).status_code == 404
    assert (await house.operator.delete(path)).status_code == 404
    assert (await keeper.http.delete(path)).status_code == 204
    assert (await keeper.http.delete(path)).status_code == 204
    assert (await keeper.http.delete(f"/api/calls/{uuid4()}/content")).status_code == 404
    again = await keeper.http.post(CHAT, json=BODY, headers=key)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_served")


async def test_an_answer_sealed_with_a_lost_key_is_told_like_one_that_is_not_kept(
    house: House, keeper: Consumer, key: dict[str, str]
) -> None:
    first = await keeper.http.post(CHAT, json=BODY, headers=key)
    await house.database.execute(
        "UPDATE stored_answers SET sealed = overlay(sealed PLACING '\\x00' FROM 30)"
        " WHERE call_id = $1",
        UUID(first.headers["x-broker-call-id"]),
    )
    again = await keeper.http.post(CHAT, json=BODY, headers=key)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "already_served")
