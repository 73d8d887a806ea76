"""Whatever a provider registers or a caller sends: what is delivered is charged, and counted out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tokenizers import Tokenizer, models
from tritonclient.http import InferInput

from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall

WORDS = models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")
SOUND = Tokenizer(WORDS).to_str()
BROKEN = json.dumps({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}})
"""It has no entry for what it does not know, and raises at the first word."""
SPACED = "their model"
ONE = np.ones(1, dtype=np.float32)


@pytest.fixture(scope="module", autouse=True)
async def providers(house: House) -> dict[str, ScriptedProvider]:
    """One with a sound tokenizer, one with a broken one, and a model with a space in its name."""
    await house.enrol(
        Stall(name="acme/sound", endpoint={"tokenizer_json": SOUND}),
        Stall(name="bolt/broken", endpoint={"tokenizer_json": BROKEN}),
        Stall(name="coil/spaced", kind="kserve", upstream=SPACED, endpoint={"version": "1"}),
    )
    return house.providers


async def _load(house: House, name: str) -> float:
    listed = (await house.operator.get("/api/prices")).json()["endpoints"]
    [load] = [each["load"] for each in listed if each["name"] == name]
    return float(load)


def _chat(model: str, member: str, *, stream: bool) -> bytes:
    message = '{"role":"user","content":"Name a tree"' + member + "}"
    asked = {"model": model, "stream": stream}
    return (json.dumps(asked)[:-1] + ',"messages":[' + message + "]}").encode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "member"), [("bolt/broken", ""), ("acme/sound", ',"weight":1e999')]
)
async def test_what_cannot_be_counted_exactly_is_charged_by_its_bytes(
    house: House, shop: Consumer, model: str, member: str, stream: bool
) -> None:
    body = _chat(model, member, stream=stream)
    answer = await shop.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 200, answer.text
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert story["code"] == "served"
    assert float(story["charge_usd"]) > 0
    assert await _load(house, model) == 0


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
