"""What the unmodified `openai` package gets through the broker, and what providers see of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from provider_sdk.testing.scripted import (
    Script,
    ScriptedProvider,
    answer_text,
    chat_prompt,
    embedding_vector,
)
from tests.integration.gateway.house import Consumer, House, Stall

MESSAGES: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Wer hört mich? Ünïcödé, please."},
]
ANSWER = answer_text(chat_prompt(MESSAGES))
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    """The one provider of this module, at half a dollar in and one and a half out."""
    await house.enrol(Stall(name="acme/small"))
    return house.providers["acme/small"]


@pytest.fixture(autouse=True)
def fresh(provider: ScriptedProvider) -> None:
    provider.script = Script(models=("upstream-name",), output_tokens=16)
    provider.received.clear()


@pytest.fixture(scope="module")
async def client(
    house: House, shop: Consumer, provider: ScriptedProvider
) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=f"{house.url}/v1", api_key=shop.key, max_retries=0, timeout=20.0
    ) as client:
        yield client


def _cost_usd(tokens_in: int, tokens_out: int) -> Decimal:
    return (tokens_in * Decimal("0.50") + tokens_out * Decimal("1.50")) / 10**6


async def test_a_chat_is_answered_with_text_usage_and_what_it_cost(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="small", messages=MESSAGES)
    answer = raw.parse()
    assert answer.choices[0].message.content == ANSWER
    assert answer.usage is not None
    assert raw.headers["x-broker-endpoint"] == "acme/small"
    assert int(raw.headers["x-broker-price-version"]) >= 0
    assert raw.headers["x-broker-price"] == "in=0.50,out=1.50"
    cost = _cost_usd(answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert Decimal(raw.headers["x-broker-cost-usd"]) == cost
    assert len(raw.headers["x-broker-call-id"]) == 36


async def test_the_synchronous_client_is_served_alike(house: House, shop: Consumer) -> None:
    def ask() -> tuple[str | None, str]:
        with OpenAI(base_url=f"{house.url}/v1", api_key=shop.key, timeout=20.0) as client:
            whole = client.chat.completions.create(model="acme/small", messages=MESSAGES)
            stream = client.chat.completions.create(model="auto", messages=MESSAGES, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        return whole.choices[0].message.content, text

    assert await asyncio.to_thread(ask) == (ANSWER, ANSWER)


async def test_a_stream_with_usage_ends_with_what_it_cost(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="small", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    told: Any = last.model_extra
    cost = _cost_usd(last.usage.prompt_tokens, last.usage.completion_tokens)
    assert Decimal(told["broker"]["cost_usd"]) == cost
    assert told["broker"]["endpoint"] == "acme/small"
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_a_stream_without_usage_has_its_cost_in_a_comment_that_no_client_minds(
    client: AsyncOpenAI, shop: Consumer, provider: ScriptedProvider
) -> None:
    stream = await client.chat.completions.create(model="small", messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == ANSWER
    assert all(chunk.usage is None for chunk in chunks)

    body = {"model": "small", "messages": MESSAGES, "stream": True}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-broker-endpoint"] == "acme/small"
    *_, comment, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert comment.startswith(": broker ")
    cost = json.loads(comment.removeprefix(": broker "))
    assert cost["call_id"] == answer.headers["x-broker-call-id"]
    assert Decimal(cost["cost_usd"]) > 0
    sent = provider.work_received[-1].json
    assert sent["stream_options"] == {"include_usage": True}


async def test_tools_are_passed_through_and_tool_calls_come_back(
    client: AsyncOpenAI, provider: ScriptedProvider
) -> None:
    asked: Any = {"model": "small", "messages": MESSAGES, "tools": [TOOL], "tool_choice": "auto"}
    answer = await client.chat.completions.create(**asked)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].function.name == "weather"
    assert provider.work_received[-1].json["tools"] == [TOOL]

    stream = await client.chat.completions.create(**asked, stream=True)
    deltas = [chunk.choices[0].delta async for chunk in stream if chunk.choices]
    [call] = [call for delta in deltas for call in delta.tool_calls or []]
    assert call.function is not None
    assert call.function.name == "weather"


async def test_logprobs_and_several_choices_come_back_and_each_choice_is_paid(
    client: AsyncOpenAI,
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="small", messages=MESSAGES, logprobs=True, top_logprobs=2, n=3
    )
    answer = raw.parse()
    assert [choice.message.content for choice in answer.choices] == [ANSWER] * 3
    logprobs = answer.choices[2].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert "".join(each.token for each in logprobs.content) == ANSWER
    assert len(logprobs.content[0].top_logprobs) == 2
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 48
    cost = _cost_usd(answer.usage.prompt_tokens, 48)
    assert Decimal(raw.headers["x-broker-cost-usd"]) == cost


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_output_limit_is_obeyed_under_the_name_the_caller_gave_it(
    client: AsyncOpenAI, provider: ScriptedProvider, name: str
) -> None:
    limit: Any = {name: 4}
    answer = await client.chat.completions.create(model="small", messages=MESSAGES, **limit)
    assert answer.choices[0].finish_reason == "length"
    sent = provider.work_received[-1].json
    assert sent[name] == 4
    assert {"max_tokens", "max_completion_tokens"} & set(sent) == {name}


async def test_what_the_broker_does_not_know_passes_through_byte_for_byte(
    shop: Consumer, provider: ScriptedProvider
) -> None:
    members = {
        b"messages": b'[ {"role":"user", "content":"caf\\u00e9 \xf0\x9f\xa6\x8a"} ]',
        b"temperature": b"1.0e-1",
        b"seed": b"12345678901234567890123",
        b"response_format": b'{"type":"json_schema","json_schema":{"name":"x","schema":{ }}}',
        b"guided_regex": b'"a\\/b"',
        b"chat_template_kwargs": b'{"enable_thinking" : false}',
        b"nothing": b"null",
    }
    body = b'{"model":"small","max_tokens":5,"broker":{"task":"x"},' + b",".join(
        b'"%s": %s ' % pair for pair in members.items()
    )
    answer = await shop.http.post("/v1/chat/completions", content=body + b"}")
    assert answer.status_code == 200, answer.text
    received = provider.work_received[-1]
    for name, raw in members.items():
        assert b'"%s":%s' % (name, raw) in received.body, name
    sent = received.json
    assert sent["model"] == "upstream-name"
    assert "broker" not in sent
    assert "stream_options" not in sent


async def test_the_provider_learns_nothing_of_the_caller(
    client: AsyncOpenAI, shop: Consumer, provider: ScriptedProvider
) -> None:
    await client.chat.completions.create(
        model="small",
        messages=MESSAGES,
        extra_headers={"x-secret": "of the caller", "cookie": "a=b", "x-broker-task": "mine"},
        extra_body={"broker": {"labels": {"team": "north"}, "session_id": "s-1"}},
    )
    received = provider.work_received[-1]
    head = " ".join(f"{name}: {value}" for name, value in received.headers.items()).lower()
    for secret in (shop.key, "x-secret", "cookie", "x-stainless", "x-broker-task", "openai"):
        assert secret.lower() not in head
    assert b"north" not in received.body
    assert "authorization" not in received.headers


async def test_completions_take_one_prompt_or_several(client: AsyncOpenAI) -> None:
    one = await client.completions.create(model="small", prompt="Once", max_tokens=6)
    assert one.choices[0].text == answer_text("Once", 6)
    raw = await client.completions.with_raw_response.create(
        model="small", prompt=["Once", "upon"], max_tokens=6, logprobs=1
    )
    several = raw.parse()
    assert [each.text for each in several.choices] == [
        answer_text("Once", 6),
        answer_text("upon", 6),
    ]
    assert several.usage is not None
    assert several.usage.completion_tokens == 12
    paid = Decimal(raw.headers["x-broker-cost-usd"])
    assert paid == _cost_usd(several.usage.prompt_tokens, 12)
    stream = await client.completions.create(model="small", prompt="Once", stream=True)
    assert "".join([c.choices[0].text async for c in stream]) == answer_text("Once")


async def test_embeddings_come_as_floats_and_as_base64(
    client: AsyncOpenAI, provider: ScriptedProvider
) -> None:
    texts = ["one text", "another text"]
    raw = await client.embeddings.with_raw_response.create(model="small", input=texts)
    packed = raw.parse()
    assert provider.work_received[-1].json["encoding_format"] == "base64"
    plain = await client.embeddings.create(
        model="small", input=texts[0], encoding_format="float", dimensions=4
    )
    for each, text in zip(packed.data, texts, strict=True):
        assert each.embedding == pytest.approx(embedding_vector(text), abs=1e-6)
    assert plain.data[0].embedding == pytest.approx(embedding_vector(texts[0], 4), abs=1e-6)
    assert packed.usage.prompt_tokens == 4
    assert Decimal(raw.headers["x-broker-cost-usd"]) == _cost_usd(4, 0)


async def test_models_are_listed_with_prices_and_found_one_by_one(
    client: AsyncOpenAI, shop: Consumer
) -> None:
    models = {model.id: model async for model in await client.models.list()}
    assert set(models) == {"auto", "small", "acme/small"}
    assert models["acme/small"].owned_by == "acme"
    told: Any = (await client.models.retrieve("acme/small")).model_extra
    in_prices = (await shop.http.get("/api/prices")).json()["endpoints"]
    [listed] = [each for each in in_prices if each["name"] == "acme/small"]
    assert told["price"] == listed["price"]
    assert told["price"]["price_out_usd"] == "1.50"
    assert told["context_length_tokens"] == listed["context_length_tokens"]
    assert (await client.models.retrieve("auto")).id == "auto"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("acme/none")


async def test_wishes_stand_in_the_body_or_in_headers_and_the_body_wins(
    client: AsyncOpenAI, house: House, shop: Consumer
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="small",
        messages=MESSAGES,
        extra_headers={"x-broker-domain": "law", "x-broker-session-id": "from-headers"},
        extra_body={"broker": {"domain": "medicine", "labels": {"team": "north"}}},
    )
    story = await house.story(shop, raw.headers["x-broker-call-id"])
    assert story["domain"] == "medicine"
    assert story["session_id"] == "from-headers"
    assert story["labels"] == {"team": "north"}
