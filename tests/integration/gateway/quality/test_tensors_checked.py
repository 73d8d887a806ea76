"""What a model declares was seen when it was probed: it is told, and its answers are held against
it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from broker.core.quality.evidence import Source
from broker.flows.calls.inspect_answer import INSPECTED
from broker.store.quality import evidence
from provider_sdk.testing.script import Script
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

NUMBERS = np.linspace(-1.0, 1.0, 7, dtype=np.float32)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def shop(house: House) -> Consumer:
    return await house.consumer("checked")


@dataclass(frozen=True)
class Pair:
    """Two endpoints of one model, of which the first is asked first."""

    house: House
    shop: Consumer
    model: str

    @property
    def first(self) -> ScriptedProvider:
        return self.house.providers[f"{self.model}-a/it"]

    @property
    def second(self) -> ScriptedProvider:
        return self.house.providers[f"{self.model}-b/it"]

    def script(self, **how: Any) -> None:
        """Tell the first how to behave from now on."""
        self.first.script = Script(kind="kserve", models=("m-1",), **how)

    async def infer(self, model: str | None = None, **more: Any) -> Any:
        """Return what an unmodified client gets."""
        headers = {
            "Authorization": f"Bearer {self.shop.key}",
            "x-broker-providers-order": f"{self.model}-a",
            "x-broker-providers-only": f"{self.model}-a,{self.model}-b",
        }
        async with triton_aio.InferenceServerClient(self.house.address) as client:
            inputs = more.pop("inputs", [numbers()])
            return await client.infer(model or self.model, inputs, headers=headers, **more)


@pytest.fixture
async def pair(house: House, shop: Consumer) -> Pair:
    made = Pair(house, shop, f"kind{next(_numbers)}")
    stall = Stall(name=f"{made.model}-a/it", model=made.model, kind="kserve", upstream="m-1")
    await house.enrol(stall, replace(stall, name=f"{made.model}-b/it", upstream="m-2"))
    return made


def numbers(values: Any = NUMBERS) -> Any:
    tensor = triton.InferInput("INPUT0", list(values.shape), "FP32")
    return tensor.set_data_from_numpy(values)


async def test_what_was_declared_is_told_without_asking_again(pair: Pair) -> None:
    tensor = {"datatype": "FP32", "shape": [-1]}
    inputs, outputs = [{"name": "INPUT0", **tensor}], [{"name": "OUTPUT0", **tensor}]
    told = (await pair.shop.http.get(f"/v2/models/{pair.model}-a/it")).json()
    assert told == {
        "name": f"{pair.model}-a/it",
        "versions": ["1"],
        "platform": "scripted",
        "inputs": inputs,
        "outputs": outputs,
    }
    assert not pair.first.received
    listed = (await pair.shop.http.get(f"/v1/models/{pair.model}-a/it")).json()
    assert (listed["inputs"], listed["outputs"]) == (inputs, outputs)


@pytest.mark.parametrize(
    ("how", "binary"),
    [("size", True), ("missing", True), ("missing", False), ("no_outputs", False)],
)
async def test_what_no_client_could_read_is_the_providers_fault_and_another_answers(
    pair: Pair, how: Any, *, binary: bool
) -> None:
    pair.script(wrong_tensor=how)
    outputs = [triton.InferRequestedOutput("OUTPUT0", binary_data=binary)]
    result = await pair.infer(outputs=outputs)
    assert np.allclose(result.as_numpy("OUTPUT0"), NUMBERS)
    assert result.get_response()["model_name"] == "m-2"
    calls = (await pair.shop.http.get("/api/calls")).json()["calls"]
    first, second = (await pair.house.story(pair.shop, calls[0]["id"]))["attempts"]
    assert first["endpoint"] == f"{pair.model}-a/it"
    assert (first["outcome"], first["charge_usd"]) == ("malformed", "0.00")
    assert (second["outcome"], second["charge_usd"]) == ("delivered", "0.001")


async def test_a_long_answer_that_is_none_is_found_out_before_any_of_it_goes_on(
    pair: Pair,
) -> None:
    long = np.zeros(100_000, np.float32)  # more than is waited for here
    whole = await pair.infer(inputs=[numbers(long)])
    assert whole.get_response()["model_name"] == "m-1"
    pair.script(wrong_tensor="size")
    result = await pair.infer(inputs=[numbers(long)])
    assert result.get_response()["model_name"] == "m-2"
    assert result.as_numpy("OUTPUT0").size == long.size


@pytest.mark.parametrize("how", ["datatype", "shape", "nan"])
async def test_what_is_not_as_declared_is_delivered_and_told_of_its_provider(
    pair: Pair, how: Any
) -> None:
    pair.script(wrong_tensor=how)
    provider = f"{pair.model}-a"
    query = "SELECT e.id FROM endpoints e JOIN accounts a ON a.id = e.provider_id WHERE a.name = $1"
    id_of_first = await pair.house.database.fetchval(query, provider)
    async with pair.house.engine.connect() as connection:
        before = await evidence.newest_id(connection)

    async def told() -> bool:
        for _ in range(round(2 / INSPECTED)):
            result = await pair.infer("auto")
            assert result.get_response()["model_name"] == "m-1"
        async with pair.house.engine.connect() as connection:
            found = [each.piece for each in await evidence.since(connection, before, 100)]
        return any(
            (each.endpoint_id, each.source, each.score) == (id_of_first, Source.CHECK, 0.0)
            for each in found
        )

    await until(told, 20.0)


async def test_inputs_that_a_model_does_not_take_are_refused_in_its_servers_words(
    pair: Pair,
) -> None:
    said = "unexpected shape for input 'INPUT0' for model 'm-1'. Expected [-1], got [7,1]"
    pair.script(status=400, body=msgspec.json.encode({"error": said}).decode())
    with pytest.raises(InferenceServerException, match="unexpected shape") as caught:
        await pair.infer(inputs=[numbers(NUMBERS[:, None])])
    assert caught.value.status() == "400"


async def test_a_server_that_fails_at_what_contradicts_its_model_is_not_blamed(
    pair: Pair,
) -> None:
    failing = {"status": 500, "body": '{"error": "cannot reshape array"}'}
    honest, pair.second.script = pair.second.script, Script(kind="kserve", **failing)
    pair.script(**failing)
    wide = triton.InferInput("INPUT0", [7], "FP64").set_data_from_numpy(NUMBERS.astype(np.float64))
    for _ in range(6):
        with pytest.raises(InferenceServerException) as caught:
            await pair.infer(inputs=[wide])
        assert caught.value.status() == "400"
        words = "input 'INPUT0' is FP64, the model takes FP32; it said: cannot reshape array"
        assert words in caught.value.message()
    pair.script()
    pair.second.script = honest
    result = await pair.infer()
    assert result.get_response()["model_name"] == "m-1", "nobody is ejected"
    pair.script(**failing)
    result = await pair.infer()
    assert result.get_response()["model_name"] == "m-2", "at what it takes it fails by itself"


async def test_where_another_takes_it_a_server_that_fails_is_failed_over_whatever_it_declared(
    house: House, shop: Consumer
) -> None:
    pair = Pair(house, shop, f"kind{next(_numbers)}")
    stall = Stall(name=f"{pair.model}-a/it", model=pair.model, kind="kserve", upstream="m-1")
    takes = replace(stall, name=f"{pair.model}-b/it", upstream="m-2")
    await house.enrol(stall, replace(takes, script=Script(datatype="FP64")))
    pair.script(status=500, body='{"error": "cannot reshape array"}')
    wide = triton.InferInput("INPUT0", [7], "FP64").set_data_from_numpy(NUMBERS.astype(np.float64))
    result = await pair.infer(inputs=[wide])
    assert result.get_response()["model_name"] == "m-2"
    calls = (await shop.http.get("/api/calls")).json()["calls"]
    first, second = (await house.story(shop, calls[0]["id"]))["attempts"]
    assert (first["outcome"], second["outcome"]) == ("server_error", "delivered")


async def test_nobody_is_asked_for_the_classes_of_texts_for_tritons_server_would_end(
    house: House, shop: Consumer
) -> None:
    pair = Pair(house, shop, f"kind{next(_numbers)}")
    stall = Stall(name=f"{pair.model}-a/it", model=pair.model, kind="kserve", upstream="m-1")
    await house.enrol(replace(stall, script=Script(datatype="BYTES")))
    text = triton.InferInput("INPUT0", [1], "BYTES")
    text.set_data_from_numpy(np.array(["bill"], dtype=np.object_))
    ranked = triton.InferRequestedOutput("OUTPUT0", class_count=2)
    for squeezed in (None, "gzip"):
        with pytest.raises(InferenceServerException, match="no classes to rank") as caught:
            await pair.infer(
                inputs=[text], outputs=[ranked], request_compression_algorithm=squeezed
            )
        assert caught.value.status() == "400"
    assert pair.first.calls == 0
    await pair.infer(inputs=[text], outputs=[triton.InferRequestedOutput("OUTPUT0")])
    assert pair.first.calls == 1
