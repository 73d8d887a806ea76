"""What the unmodified `tritonclient.http` gets through the broker, synchronous and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException

from broker.core.key_terms import Allowance
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

T = TypeVar("T")
NUMBERS = np.linspace(-1.0, 1.0, 7, dtype=np.float32)
TEXTS = np.array(["naïve".encode(), b"", b"\x00\xff raw"], dtype=np.object_)


@pytest.fixture(scope="module")
async def provider(house: House) -> ScriptedProvider:
    """A generalist; beside it, a dearer specialist in law."""
    general = Stall(name="acme/topic", model="text-kind", kind="kserve", upstream="m-1")
    specialist = Stall(
        name="lexis/law",
        model="text-law",
        kind="kserve",
        upstream="m-2",
        usd_call="0.002",
        endpoint={"domains": {"law": 0.9}, "version": "2"},
    )
    await house.enrol(general, specialist)
    return house.providers["acme/topic"]


@pytest.fixture(autouse=True)
def fresh(provider: ScriptedProvider) -> None:
    provider.received.clear()


@pytest.fixture
async def client(house: House) -> AsyncIterator[Any]:
    async with triton_aio.InferenceServerClient(house.address) as client:
        yield client


@pytest.fixture
def headers(shop: Consumer) -> dict[str, str]:
    """For one test: the client writes into the headers that it is given."""
    return {"Authorization": f"Bearer {shop.key}"}


def _numbers(*, binary: bool = True, values: Any = NUMBERS) -> Any:
    tensor = triton.InferInput("INPUT0", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor


def _texts(*, binary: bool = True) -> Any:
    tensor = triton.InferInput("INPUT1", [3], "BYTES")
    tensor.set_data_from_numpy(TEXTS if binary else np.array(["a", "", "ü"], object), binary)
    return tensor


async def _in_thread(house: House, work: Callable[[Any], T]) -> T:
    """Do `work` with a synchronous client, which keeps to the thread that it was made in."""

    def run() -> T:
        with triton.InferenceServerClient(house.address, network_timeout=20.0) as client:
            return work(client)

    return await asyncio.to_thread(run)


async def test_the_server_tells_of_itself_without_a_key(client: Any, house: House) -> None:
    assert await client.is_server_live()
    assert await client.is_server_ready()
    metadata = await client.get_server_metadata()
    assert metadata["name"] == "model-broker"
    assert "binary_tensor_data" in metadata["extensions"]
    assert await _in_thread(house, lambda sync: sync.is_server_live() and sync.is_server_ready())


@pytest.mark.parametrize("name", ["acme/topic", "acme--topic", "text-kind", "auto"])
async def test_a_model_goes_by_its_endpoint_in_both_spellings_its_family_or_auto(
    client: Any, house: House, headers: dict[str, str], provider: ScriptedProvider, name: str
) -> None:
    assert await client.is_model_ready(name, headers=headers)
    result = await client.infer(name, [_numbers()], headers=headers)
    assert np.array_equal(result.as_numpy("OUTPUT0"), NUMBERS)
    answer = await _in_thread(house, lambda sync: sync.infer(name, [_numbers()], headers=headers))
    assert np.array_equal(answer.as_numpy("OUTPUT0"), NUMBERS)
    assert {each.path for each in provider.work_received} == {"/v2/models/m-1/versions/1/infer"}


async def test_versions_are_told_apart(client: Any, headers: dict[str, str]) -> None:
    assert await client.is_model_ready("lexis/law", "2", headers=headers)
    assert not await client.is_model_ready("lexis/law", "1", headers=headers)
    result = await client.infer("lexis--law", [_numbers()], model_version="2", headers=headers)
    assert result.get_response()["model_version"] == "2"
    with pytest.raises(InferenceServerException, match=r"another version \(1\)"):
        await client.infer("lexis/law", [_numbers()], model_version="1", headers=headers)


async def test_auto_goes_where_the_declared_domain_is_served(
    client: Any, house: House, shop: Consumer, headers: dict[str, str]
) -> None:
    law = headers | {"x-broker-domain": "law", "x-broker-weights": "quality"}
    result = await client.infer("auto", [_numbers()], headers=law)
    assert result.get_response()["model_name"] == "m-2"
    only = headers | {"x-broker-providers-only": "acme"}
    result = await client.infer("auto", [_numbers()], headers=only)
    assert result.get_response()["model_name"] == "m-1"


async def test_metadata_comes_from_the_provider_and_a_missing_configuration_is_said(
    client: Any, house: House, headers: dict[str, str]
) -> None:
    metadata = await client.get_model_metadata("acme/topic", headers=headers)
    assert metadata["inputs"][0]["name"] == "INPUT0"
    sync = await _in_thread(
        house, lambda client: client.get_model_metadata("acme--topic", headers=headers)
    )
    assert sync == metadata
    with pytest.raises(InferenceServerException, match="does not tell that of itself"):
        await client.get_model_config("acme/topic", headers=headers)


@pytest.mark.parametrize("name", ["acme/topic", "acme--topic", "text-kind", "auto"])
async def test_who_asks_for_the_model_that_its_metadata_names_gets_it_as_perf_analyzer_does(
    client: Any, headers: dict[str, str], name: str
) -> None:
    told = await client.get_model_metadata(name, headers=headers)
    assert told["name"] == name.replace("--", "/")
    result = await client.infer(told["name"], [_numbers()], headers=headers)
    assert np.array_equal(result.as_numpy("OUTPUT0"), NUMBERS)


async def test_metadata_comes_from_where_the_same_wishes_lead_an_inference(
    client: Any, shop: Consumer, headers: dict[str, str]
) -> None:
    for endpoint, model in (("acme/topic", "m-1"), ("lexis/law", "m-2")):
        wishing = headers | {"x-broker-providers-only": endpoint.partition("/")[0]}
        told = await shop.http.get("/v2/models/auto", headers=wishing)
        assert told.headers["x-broker-endpoint"] == endpoint
        result = await client.infer("auto", [_numbers()], headers=wishing)
        assert result.get_response()["model_name"] == model


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
async def test_tensors_pass_in_binary_and_in_json(
    client: Any, headers: dict[str, str], *, binary_in: bool, binary_out: bool
) -> None:
    inputs = [_numbers(binary=binary_in), _texts(binary=binary_in)]
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("OUTPUT0", "OUTPUT1")
    ]
    if binary_in and not binary_out:  # such bytes have no place in JSON
        inputs, outputs = inputs[:1], outputs[:1]
    result = await client.infer("acme/topic", inputs, outputs=outputs, headers=headers)
    assert np.allclose(result.as_numpy("OUTPUT0"), NUMBERS)
    if len(inputs) == 2:
        texts = result.as_numpy("OUTPUT1").tolist()
        expected = TEXTS.tolist() if binary_in else [b"a", b"", "ü".encode()]
        assert [t if isinstance(t, bytes) else t.encode() for t in texts] == expected


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_bodies_pass_both_ways_without_being_unpacked(
    client: Any, house: House, headers: dict[str, str], provider: ScriptedProvider, encoding: str
) -> None:
    packing = {
        "request_compression_algorithm": encoding,
        "response_compression_algorithm": encoding,
        "headers": headers,
    }
    result = await client.infer("acme/topic", [_numbers(), _texts()], **packing)
    assert result.as_numpy("OUTPUT1").tolist() == TEXTS.tolist()
    received = provider.work_received[-1]
    assert received.headers["content-encoding"] == encoding
    assert received.headers["accept-encoding"] == encoding
    sync = await _in_thread(
        house, lambda client: client.infer("acme/topic", [_numbers()], **packing)
    )
    assert np.array_equal(sync.as_numpy("OUTPUT0"), NUMBERS)


async def test_a_large_tensor_passes_untouched_byte_for_byte(
    house: House, shop: Consumer, headers: dict[str, str], provider: ScriptedProvider
) -> None:
    large = np.random.default_rng(7).standard_normal(150_000, dtype=np.float32)
    body, length = triton.InferenceServerClient.generate_request_body([_numbers(values=large)])
    length_header = {"Inference-Header-Content-Length": str(length)}
    answer = await shop.http.post(
        "/v2/models/acme/topic/infer", content=body, headers=headers | length_header
    )
    assert answer.status_code == 200, answer.text
    assert provider.work_received[-1].body == body
    assert answer.content.endswith(large.tobytes())
    result = await _in_thread(
        house,
        lambda sync: sync.infer("acme/topic", [_numbers(values=large)], headers=headers),
    )
    assert result.as_numpy("OUTPUT0").tobytes() == large.tobytes()


async def test_an_inference_costs_its_call_and_says_so(
    shop: Consumer, house: House, headers: dict[str, str]
) -> None:
    body = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
    answer = await shop.http.post("/v2/models/text-kind/infer", json=body)
    assert Decimal(answer.headers["x-broker-cost-usd"]) == Decimal("0.001")
    assert answer.headers["x-broker-endpoint"] == "acme/topic"
    story = await house.story(shop, answer.headers["x-broker-call-id"])
    assert story["task"] == "infer"
    assert Decimal(story["charge_usd"]) == Decimal("0.001")


async def test_the_key_may_be_the_password_of_the_basic_auth_plugin(
    house: House, shop: Consumer
) -> None:
    def ask(client: Any) -> Any:
        client.register_plugin(BasicAuth("anyone", shop.key))
        return client.infer("acme/topic", [_numbers()])

    result = await _in_thread(house, ask)
    assert np.array_equal(result.as_numpy("OUTPUT0"), NUMBERS)
    with pytest.raises(InferenceServerException, match="invalid_api_key"):
        await _in_thread(house, lambda client: client.infer("acme/topic", [_numbers()]))


async def test_a_providers_own_error_is_readable(client: Any, headers: dict[str, str]) -> None:
    output = triton.InferRequestedOutput("NONE")
    with pytest.raises(InferenceServerException, match="output that does not exist") as caught:
        await client.infer("acme/topic", [_numbers()], outputs=[output], headers=headers)
    assert caught.value.status() == "400"


async def test_the_index_of_models_is_the_broker_s_own(
    client: Any, headers: dict[str, str], house: House, provider: ScriptedProvider
) -> None:
    listed = await client.get_model_repository_index(headers=headers)
    told = [(each["name"], each["version"], each["state"]) for each in listed]
    assert told == [
        ("text-kind", "1", "READY"),
        ("text-law", "2", "READY"),
        ("acme/topic", "1", "READY"),
        ("lexis/law", "2", "READY"),
    ]
    for name, version, _ in told:
        assert await client.is_model_ready(name, version, headers=headers)
    assert not provider.received
    allowance = Allowance(models=frozenset({"text-law"}), providers=None)
    narrow = await house.consumer("narrow", allowance=allowance)
    seen = await narrow.http.post("/v2/repository/index", json={"ready": True})
    assert [each["name"] for each in seen.json()] == ["text-law", "lexis/law"]
    with pytest.raises(InferenceServerException, match="invalid_api_key"):
        await client.get_model_repository_index()
    assert (await narrow.http.post("/v2/repository/index", content=b"[")).status_code == 400


MANAGING: list[tuple[str, tuple[Any, ...]]] = [
    ("load_model", ("acme/topic",)),
    ("unload_model", ("acme/topic",)),
    ("get_system_shared_memory_status", ()),
    ("register_system_shared_memory", ("region", "/dev/shm/x", 8)),
    ("unregister_cuda_shared_memory", ()),
    ("get_trace_settings", ("acme--topic",)),
    ("update_log_settings", ({"log_info": True},)),
]


@pytest.mark.parametrize(("name", "arguments"), MANAGING)
async def test_what_reaches_into_a_providers_host_is_refused(
    client: Any,
    headers: dict[str, str],
    provider: ScriptedProvider,
    name: str,
    arguments: tuple[Any, ...],
) -> None:
    with pytest.raises(InferenceServerException, match="not served"):
        await getattr(client, name)(*arguments, headers=headers)
    assert not provider.received


async def test_a_tensor_in_shared_memory_is_refused(
    client: Any, headers: dict[str, str], provider: ScriptedProvider
) -> None:
    tensor = triton.InferInput("INPUT0", [2], "FP32")
    tensor.set_shared_memory("region", 8)
    for encoding in (None, "gzip"):
        with pytest.raises(InferenceServerException, match="shared_memory_denied"):
            await client.infer(
                "acme/topic",
                [tensor],
                headers=dict(headers),
                request_compression_algorithm=encoding,
            )
    output = triton.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("region", 8)
    with pytest.raises(InferenceServerException, match="shared_memory_denied"):
        await client.infer("acme/topic", [_numbers()], outputs=[output], headers=headers)
    assert not provider.received


FAILURES = {
    "all_providers_failed": ("502", Script(kind="kserve", models=("m-1",), status=500)),
    "provider_refused": ("422", Script(kind="kserve", models=("m-1",), status=422)),
    "deadline_passed": ("504", Script(kind="kserve", models=("m-1",), stall=True)),
}


@pytest.mark.parametrize("code", FAILURES)
async def test_failures_are_readable_too(
    client: Any, headers: dict[str, str], provider: ScriptedProvider, code: str
) -> None:
    status, provider.script = FAILURES[code]
    hurried = headers | {"x-broker-deadline-s": "0.3" if provider.script.stall else "10"}
    try:
        with pytest.raises(InferenceServerException, match=code) as caught:
            await client.infer("acme/topic", [_numbers()], headers=hurried)
        assert caught.value.status() == status
    finally:
        provider.script = Script(kind="kserve", models=("m-1",))


async def test_a_500_that_refuses_the_request_is_a_400_that_ejects_nobody(
    client: Any, headers: dict[str, str], provider: ScriptedProvider
) -> None:
    said = '{"error": "Unable to parse \'data\': attempt to access JSON non-array as array"}'
    provider.script = Script(kind="kserve", models=("m-1",), status=500, body=said)
    calls_before = provider.calls
    try:
        for _ in range(4):
            with pytest.raises(InferenceServerException, match="Unable to parse") as caught:
                await client.infer("acme/topic", [_numbers()], headers=dict(headers))
            assert caught.value.status() == "400"
    finally:
        provider.script = Script(kind="kserve", models=("m-1",))
    assert provider.calls == calls_before + 4, "each was tried once"
    result = await client.infer("text-kind", [_numbers()], headers=headers)
    assert result.get_response()["model_name"] == "m-1"


async def test_an_account_without_money_is_told_so(client: Any, house: House) -> None:
    poor = await house.consumer("poor", usd=0)
    with pytest.raises(InferenceServerException, match="insufficient_balance") as caught:
        await client.infer(
            "acme/topic", [_numbers()], headers={"Authorization": f"Bearer {poor.key}"}
        )
    assert caught.value.status() == "402"


@pytest.mark.parametrize("name", ["a b", "mödel", "x" * 3_000, "a%2Fb%00", "..", "a/b/c"])
async def test_a_strange_name_is_not_found(client: Any, headers: dict[str, str], name: str) -> None:
    with pytest.raises(InferenceServerException, match=r"not_found|not_allowed"):
        await client.infer(name, [_numbers()], headers=headers)


async def test_a_model_tells_of_itself_while_it_is_full(house: House, shop: Consumer) -> None:
    narrow = Stall(name="tiny/narrow", model="narrow", kind="kserve", upstream="m-3", capacity=1)
    await house.enrol(narrow)
    tiny, path = house.providers["tiny/narrow"], "/v2/models/narrow"
    tiny.script = msgspec.structs.replace(tiny.script, stall=True)
    tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [0.5]}
    infer = partial(shop.http.post, f"{path}/infer", json={"inputs": [tensor]})
    calls = [asyncio.create_task(infer()) for _ in range(2)]
    try:
        await until(lambda: tiny.calls == len(calls))
        assert (await infer()).status_code == 429
        assert (await shop.http.get(f"{path}/ready")).status_code == 200
        assert (await shop.http.get(path)).json()["name"] == "narrow"
    finally:
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
