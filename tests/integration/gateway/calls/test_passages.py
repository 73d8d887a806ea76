"""Long answers of inferences: passed on as they come, and paid when they came whole."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import tritonclient.http as triton

from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.waiting import until

PATH = "/v2/models/tensors/infer"
LARGE = np.random.default_rng(7).standard_normal(150_000, dtype=np.float32)


@pytest.fixture(scope="module")
async def shop(hasty_house: House) -> Consumer:
    return await hasty_house.consumer("shop")


@pytest.fixture(scope="module")
async def provider(hasty_house: House) -> ScriptedProvider:
    await hasty_house.enrol(Stall(name="acme/tensors", model="tensors", kind="kserve"))
    return hasty_house.providers["acme/tensors"]


def request(values: Any = LARGE) -> dict[str, Any]:
    tensor = triton.InferInput("INPUT0", [values.size], "FP32").set_data_from_numpy(values)
    body, length = triton.InferenceServerClient.generate_request_body([tensor])
    return {"content": body, "headers": {"inference-header-content-length": str(length)}}


async def _balance(house: House, shop: Consumer) -> Decimal:
    await house.let_go()
    return Decimal((await shop.http.get("/api/balance")).json()["posted_usd"])


@pytest.mark.parametrize("key", [None, "a-key"])
async def test_a_long_answer_comes_whole_and_costs_its_call(
    hasty_house: House, shop: Consumer, provider: ScriptedProvider, key: str | None
) -> None:
    before = await _balance(hasty_house, shop)
    asked = request()
    if key is not None:  # then it is read whole, for it may have to be kept
        asked["headers"]["idempotency-key"] = key
    answer = await shop.http.post(PATH, **asked)
    assert answer.status_code == 200, answer.text
    assert answer.content.endswith(LARGE.tobytes())
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert Decimal(answer.headers["x-broker-cost-usd"]) == Decimal("0.001")
    story = await hasty_house.story(shop, answer.headers["x-broker-call-id"])
    assert (story["code"], Decimal(story["charge_usd"])) == ("served", Decimal("0.001"))
    assert before - await _balance(hasty_house, shop) == Decimal("0.001")


async def test_the_next_call_goes_on_on_the_same_connections(
    shop: Consumer, provider: ScriptedProvider
) -> None:
    for size in (10, 150_000, 10, 150_000):
        answer = await shop.http.post(PATH, **request(LARGE[:size]))
        assert answer.content.endswith(LARGE[:size].tobytes())


async def _codes(house: House) -> list[str]:
    """How calls ended that were not served."""
    rows = await house.database.fetch(
        "SELECT code FROM calls WHERE model = 'tensors' AND code <> 'served'"
    )
    return [row["code"] for row in rows]


@pytest.mark.parametrize("by_reset", [False, True])
async def test_a_long_answer_that_breaks_off_is_not_taken_for_whole_and_costs_nothing(
    hasty_house: House, shop: Consumer, provider: ScriptedProvider, by_reset: bool
) -> None:
    before, told = await _balance(hasty_house, shop), await _codes(hasty_house)
    well = provider.script
    provider.script = msgspec.structs.replace(well, cut_after_bytes=300_000, cut_by_reset=by_reset)
    try:
        with pytest.raises(httpx.HTTPError):
            # Where the reset overtakes all that was sent, nothing had come yet.
            (await shop.http.post(PATH, **request())).raise_for_status()
    finally:
        provider.script = well
    assert await _balance(hasty_house, shop) == before
    codes = list[str]()

    async def is_told() -> bool:
        codes[:] = await _codes(hasty_house)
        return len(codes) == len(told) + 1

    await until(is_told)
    assert {*codes} <= {"provider_cut_off", "all_providers_failed"}


async def test_who_leaves_in_the_middle_of_a_long_answer_pays_for_the_call(
    hasty_house: House, shop: Consumer, provider: ScriptedProvider
) -> None:
    before = await _balance(hasty_house, shop)
    well = provider.script
    # It trickles at the end, so that there is a middle.
    provider.script = msgspec.structs.replace(well, stall_after_chunks=1, split_at_bytes=400_000)
    try:
        async with shop.http.stream("POST", PATH, **request()) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_raw():
                break
    finally:
        provider.script = well
    await until(lambda: provider.in_flight == 0)
    assert before - await _balance(hasty_house, shop) == Decimal("0.001")
