"""What is left of large calls that end badly: no body waits for the garbage collector."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from broker.core.call import TensorBody
from provider_sdk.testing.scripted import ScriptedProvider
from tests.integration.gateway.house import Consumer, House, Stall
from tests.integration.gateway.wire.test_large_inferences import PATH, request

PROVIDERS = ("acme/pictures", "beta/pictures")
_TRIES = 200


@pytest.fixture(scope="module")
async def shop(house: House) -> Consumer:
    return await house.consumer("gallery")


@pytest.fixture(scope="module")
async def providers(house: House) -> list[ScriptedProvider]:
    await house.enrol(*(Stall(name=name, model="pictures", kind="kserve") for name in PROVIDERS))
    return [house.providers[name] for name in PROVIDERS]


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def count_left() -> int:
    """Return how many bodies are there once those that are still in use have gone."""
    for _ in range(_TRIES):
        left = sum(type(each) is TensorBody for each in gc.get_objects())
        if not left:
            return 0
        await asyncio.sleep(0.01)
    return left


async def ask(shop: Consumer, path: str = PATH, **more: Any) -> int:
    try:
        return (await shop.http.post(path, **request(), **more)).status_code
    except httpx.TimeoutException:
        return 499


@pytest.mark.usefixtures("uncollected")
async def test_the_body_of_a_caller_who_left_goes_at_once(
    shop: Consumer, providers: list[ScriptedProvider]
) -> None:
    was = [each.script for each in providers]
    for each in providers:
        each.script = msgspec.structs.replace(each.script, stall=True)
    try:
        said = await asyncio.gather(*(ask(shop, timeout=0.4) for _ in range(8)))
    finally:
        for each, script in zip(providers, was, strict=True):
            each.script = script
    assert said == [499] * 8
    assert sum(each.calls for each in providers) >= 8
    assert await count_left() == 0


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(("path", "status"), [(PATH, 200), ("/v2/models/nobody/infer", 404)])
async def test_the_body_of_a_call_that_was_answered_goes_at_once(
    shop: Consumer, providers: list[ScriptedProvider], path: str, status: int
) -> None:
    assert [await ask(shop, path) for _ in range(3)] == [status] * 3
    assert await count_left() == 0
