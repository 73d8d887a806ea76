"""What is no call has a measure too, and nothing that takes long holds up a stop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from broker.api.patience import STREAMS_PER_MINUTE, unless_stopping
from broker.errors import Unavailable
from tests.integration.gateway.house import Consumer, House, open_house

LOOK_UPS = 5


async def statuses(http: httpx.AsyncClient, path: str, count: int) -> list[int]:
    """Ask so often for the head of an answer."""
    told = []
    for _ in range(count):
        async with http.stream("GET", path) as answer:
            told.append(answer.status_code)
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                await answer.aread()
                assert "key_rate" in answer.text or path.startswith("/v2"), answer.text
    return told


async def test_a_key_looks_up_so_often_only(database_url: str, valkey_server: Any) -> None:
    async with open_house(database_url, valkey_server.url, look_ups_per_minute=LOOK_UPS) as house:
        shop, other = await house.consumer("shop"), await house.consumer("other")
        told = await statuses(shop.http, "/v1/models", LOOK_UPS + 3)
        assert told[-2:] == [429, 429]
        assert await statuses(shop.http, "/v2/models/none", 1) == [429]
        assert await statuses(other.http, "/v2/models/none", 1) == [404], "each key has its own"
        assert await statuses(shop.http, "/v2/health/live", 20) == [200] * 20


async def test_a_key_opens_the_stream_of_prices_so_often_only(house: House, shop: Consumer) -> None:
    told = await statuses(shop.http, "/api/prices/stream", STREAMS_PER_MINUTE + 4)
    assert told[:STREAMS_PER_MINUTE] == [200] * STREAMS_PER_MINUTE
    assert 429 in told


async def test_what_takes_long_is_cancelled_by_a_stop() -> None:
    parts: Any = SimpleNamespace(stopping=False)
    ended = asyncio.Event()

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(unless_stopping(parts, long()))
    await asyncio.sleep(0)
    parts.stopping = True
    with pytest.raises(Unavailable):
        await task
    assert ended.is_set()


async def test_what_is_done_before_a_stop_is_told() -> None:
    async def quick() -> int:
        return 7

    assert await unless_stopping(SimpleNamespace(stopping=False), quick()) == 7  # type: ignore[arg-type]
