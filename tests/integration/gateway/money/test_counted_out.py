"""Whatever a provider registers: what is delivered is charged, and counted out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http.aio as triton
from msgspec.structs import replace
from tritonclient.http import InferInput

from broker.core.call import ROLE_TOKENS
from broker.core.metering import END_TOKENS, TEMPLATE_TOKENS
from broker.encoding.tokens import LONG_CHARACTERS
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall

BROKEN = json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}})
"""It has no entry for what it does not know, and raises at the first word."""
BY_WORDS = json.dumps(
    {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
        "pre_tokenizer": {"type": "WhitespaceSplit"},
    }
)
WORDS = 3_000
SPACED = "their model"
ONE = np.ones(1, dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
async def providers(house: House) -> dict[str, ScriptedProvider]:
    """One with a broken tokenizer, and one of a model with a space in its name."""
    await house.enrol(
        Stall(name="bolt/broken", endpoint={"tokenizer_json": BROKEN}),
        Stall(
            name="bolt/words",
            script=Script(output_tokens=WORDS, usage_factor=100.0),
            endpoint={"tokenizer_json": BY_WORDS},
        ),
        Stall(name="coil/spaced", kind="kserve", upstream=SPACED, endpoint={"version": "1"}),
    )
    return house.providers


async def _load(house: House, name: str) -> float:
    listed = (await house.operator.get("/api/prices")).json()["endpoints"]
    [load] = [each["load"] for each in listed if each["name"] == name]
    return float(load)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_its_tokenizer_cannot_count_is_charged_by_its_bytes(
    house: House, shop: Consumer, stream: bool
) -> None:
    message = {"role": "user", "content": "Name a tree"}
    body = {"model": "bolt/broken", "messages": [message], "stream": stream}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert story["code"] == "served"
    assert float(story["charge_usd"]) > 0
    assert await _load(house, "bolt/broken") == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("latency_ms", [0.0, 100.0])
async def test_long_prompts_and_answers_are_counted_to_the_token_whatever_is_claimed(
    house: House, shop: Consumer, stream: bool, latency_ms: float
) -> None:
    provider = house.providers["bolt/words"]
    provider.script = replace(provider.script, latency_ms=latency_ms, stall_after_chunks=None)
    message = {"role": "user", "content": "a " * WORDS}
    body = {"model": "bolt/words", "messages": [message], "stream": stream}
    answer = await shop.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    [attempt] = (await house.story(shop, answer.headers["x-broker-call-id"]))["attempts"]
    assert attempt["tokens_in"] == WORDS + ROLE_TOKENS + TEMPLATE_TOKENS
    assert attempt["tokens_out"] == WORDS + END_TOKENS
    assert await _load(house, "bolt/words") == 0


async def test_what_a_caller_who_leaves_has_had_of_a_long_stream_is_counted_to_the_token(
    house: House, shop: Consumer
) -> None:
    provider = house.providers["bolt/words"]
    provider.script = replace(provider.script, latency_ms=0.0, stall_after_chunks=WORDS)
    message = {"role": "user", "content": "a " * WORDS}
    body = {"model": "bolt/words", "messages": [message], "stream": True}
    heard = ""
    async with shop.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                heard += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
            if len(heard.split()) == WORDS - 1:
                break
    assert len(heard) > LONG_CHARACTERS
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert story["code"] == "caller_left"
    [attempt] = story["attempts"]
    assert attempt["tokens_in"] == WORDS
    assert attempt["tokens_out"] == WORDS - 1
    assert await _load(house, "bolt/words") == 0


async def test_a_model_with_a_space_in_its_name_is_served_as_it_was_probed(
    house: House, shop: Consumer
) -> None:
    tensor: Any = InferInput("INPUT0", [1], "FP32").set_data_from_numpy(ONE)
    async with triton.InferenceServerClient(house.address) as client:
        headers = {"Authorization": f"Bearer {shop.key}"}
        result = await client.infer("coil/spaced", [tensor], headers=headers)
    assert result.get_response()["model_name"] == SPACED
    assert house.providers["coil/spaced"].received[-1].path == (
        "/v2/models/their%20model/versions/1/infer"
    )
    assert await _load(house, "coil/spaced") == 0
