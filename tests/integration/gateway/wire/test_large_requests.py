"""The room for large requests is no one account's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from broker.embedded.valkey import EmbeddedValkey
from tests.integration.gateway.house import House, Stall, open_house
from tests.waiting import until

ROOM_BYTES = 1_000_000
LARGE: dict[str, Any] = {
    "model": "acme/roomy",
    "messages": [{"role": "user", "content": "word " * 60_000}],
    "max_tokens": 1,
}
PATH = "/v1/chat/completions"


@pytest.fixture
async def roomy(database_url: str, valkey_server: EmbeddedValkey) -> AsyncIterator[House]:
    async with open_house(database_url, valkey_server.url, bodies_bytes_max=ROOM_BYTES) as house:
        yield house


async def test_an_account_that_fills_its_share_of_the_room_keeps_no_other_out(roomy: House) -> None:
    await roomy.enrol(Stall(name="acme/roomy", endpoint={"context_length_tokens": 1_000_000}))
    greedy, other = await roomy.consumer("greedy"), await roomy.consumer("other")
    provider = roomy.providers["acme/roomy"]
    usual = provider.script
    provider.script = msgspec.structs.replace(usual, capacity=0)  # nobody has a place
    calls = [asyncio.create_task(greedy.http.post(PATH, json=LARGE)) for _ in range(2)]
    await until(lambda: provider.waiting == 2)
    refused = await greedy.http.post(PATH, json=LARGE)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "large_requests"
    assert (await greedy.http.get("/v1/models")).status_code == 200
    small = LARGE | {"messages": [{"role": "user", "content": "Hi"}]}
    calls.append(asyncio.create_task(other.http.post(PATH, json=LARGE)))
    calls.append(asyncio.create_task(greedy.http.post(PATH, json=small)))
    await until(lambda: provider.waiting == 4)
    provider.script = usual
    assert [(await each).status_code for each in calls] == [200] * 4
    again = await greedy.http.post(PATH, json=LARGE)
    assert again.status_code == 200
    assert await roomy.database.fetchval("SELECT count(*) FROM settlements") == 5
