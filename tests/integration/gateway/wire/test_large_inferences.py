"""Inferences with large tensors: what the provider gets is what was sent, whoever has it first."""

from __future__ import annotations

import gzip
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import tritonclient.http as triton

from provider_sdk.testing.script import Script
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall

PATH = "/v2/models/pictures/infer"
PICTURE = np.random.default_rng(8).standard_normal(150_000, dtype=np.float32)


@pytest.fixture(scope="module")
async def shop(house: House) -> Consumer:
    return await house.consumer("gallery")


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    names = ("acme/pictures", "beta/pictures")
    await house.enrol(*(Stall(name=name, model="pictures", kind="kserve") for name in names))
    return house.providers["acme/pictures"]


def request(values: Any = PICTURE, json_bytes: int = 0) -> dict[str, Any]:
    """`json_bytes`: the JSON before the tensor is at least so long."""
    tensor = triton.InferInput("INPUT0", [values.size], "FP32").set_data_from_numpy(values)
    parameters = {"padding": "x" * json_bytes}
    body, length = triton.InferenceServerClient.generate_request_body(
        [tensor], parameters=parameters
    )
    return {"content": body, "headers": {"inference-header-content-length": str(length)}}


@pytest.mark.parametrize("json_bytes", [0, 300_000])
@pytest.mark.parametrize("key", [None, "a-key"])
async def test_a_large_tensor_arrives_as_it_was_sent(
    shop: Consumer, provider: ScriptedProvider, json_bytes: int, key: str | None
) -> None:
    for values in (PICTURE, PICTURE[::-1].copy(), PICTURE[:70_000], PICTURE[:10]):
        asked = request(values, json_bytes)
        if key is not None:
            asked["headers"]["idempotency-key"] = f"{key}-{json_bytes}-{values.size}-{values[0]}"
        answer = await shop.http.post(PATH, **asked)
        assert answer.status_code == 200, answer.text
        assert answer.content.endswith(values.tobytes())


async def test_a_large_compressed_body_passes_as_it_is(
    shop: Consumer, provider: ScriptedProvider
) -> None:
    asked = request()
    asked["content"] = gzip.compress(asked["content"], 1)
    asked["headers"]["content-encoding"] = "gzip"
    answer = await shop.http.post(PATH, **asked)
    assert answer.content.endswith(PICTURE.tobytes()), answer.text[:500]


@pytest.mark.parametrize("fault", [Script(status=500), Script(reset=True), Script(empty=True)])
async def test_another_provider_gets_all_of_a_large_tensor_when_the_first_fails(
    shop: Consumer, provider: ScriptedProvider, fault: Script
) -> None:
    well, before = provider.script, provider.calls
    provider.script = msgspec.structs.replace(well, sequence=(fault,) * (before + 1))
    try:
        asked = request()
        asked["headers"]["x-broker-providers-order"] = "acme"
        answer = await shop.http.post(PATH, **asked)
        assert answer.headers["x-broker-endpoint"] == "beta/pictures"
        assert answer.content.endswith(PICTURE.tobytes()), answer.text[:500]
        assert provider.calls == before + 1
    finally:
        provider.script = well


async def test_shared_memory_is_found_behind_what_came_first(
    shop: Consumer, provider: ScriptedProvider
) -> None:
    asked = request(json_bytes=300_000)
    length = int(asked["headers"]["inference-header-content-length"])
    json = asked["content"][: length - 1] + b',"x":{"shared_memory_region":"r"}}'
    asked["content"] = json + asked["content"][length:]
    asked["headers"]["inference-header-content-length"] = str(len(json))
    answer: httpx.Response = await shop.http.post(PATH, **asked)
    assert answer.status_code == 403, answer.text[:500]
