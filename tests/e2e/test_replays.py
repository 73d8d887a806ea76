"""One key, several brokers: a call is run once, and a killed broker takes its keys along no longer
than its holds."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.e2e.harness import Floor
from tests.e2e.process import BrokerProcess
from tests.e2e.stall import Stall
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.e2e

BODY = {"model": "common", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 16}


class Keeper:
    """A consumer whose key opted in to keep answers, at any of the brokers."""

    def __init__(self, floor: Floor, key: str) -> None:
        self._floor = floor
        self._bearer = {"authorization": f"Bearer {key}"}

    async def ask(self, broker: BrokerProcess, order: str, **more: Any) -> httpx.Response:
        """Send a call under a key; while the broker does not know the caller yet, again."""
        headers = self._bearer | {"idempotency-key": order}
        async with httpx.AsyncClient(base_url=broker.url, timeout=PATIENCE_S) as http:
            while True:
                answer = await http.post("/v1/chat/completions", json=BODY | more, headers=headers)
                if answer.status_code != 401:
                    return answer
                await asyncio.sleep(0.05)


async def test_one_key_runs_once_whichever_brokers_are_asked_and_whichever_dies(
    floor: Floor,
) -> None:
    first, second = await floor.open_broker(), await floor.open_broker()
    stall = Stall("acme", "common")
    await floor.list_stalls(stall)
    terms = {"content_kept": "replay"}
    issued = await floor.http().post("/api/accounts/shop/keys", json=terms)
    keeper = Keeper(floor, issued.raise_for_status().json()["key"])
    await _one_runs(floor, stall, keeper)
    await _a_killed_broker_leaves_its_keys(floor, stall, keeper)
    assert first.child.returncode is not None
    kept = await keeper.ask(second, "order-1")
    assert kept.headers["x-broker-replayed"] == "true", "what was kept outlives who kept it"


async def _one_runs(floor: Floor, stall: Stall, keeper: Keeper) -> None:
    stall.behave(ttft_ms=400)
    stall.server.calls = 0
    answers = await asyncio.gather(
        *(keeper.ask(broker, "order-1") for broker in floor.brokers for _ in range(6))
    )
    assert {each.status_code for each in answers} == {200}
    assert len({each.content for each in answers}) == 1
    [call_id] = {UUID(each.headers["x-broker-call-id"]) for each in answers}
    assert stall.server.calls == 1
    assert list(await floor.settlements()) == [call_id]


async def _a_killed_broker_leaves_its_keys(floor: Floor, stall: Stall, keeper: Keeper) -> None:
    first, second = floor.brokers
    stall.behave(stall=True)
    doomed = [
        asyncio.create_task(keeper.ask(first, f"doomed-{n}", stream=bool(n))) for n in range(2)
    ]

    async def under_way() -> bool:
        return stall.server.in_flight == 2

    await until(under_way)
    waiting = [
        asyncio.create_task(keeper.ask(second, f"doomed-{n}", stream=bool(n))) for n in range(2)
    ]
    await first.kill()
    assert all(isinstance(each, httpx.HTTPError) for each in await _failures(doomed))
    stall.behave()
    await asyncio.sleep(0.3)
    assert not any(each.done() for each in waiting), "their holds are open still"
    await floor.release_orphans()
    answers = await asyncio.gather(*waiting)
    assert {each.status_code for each in answers} == {200}
    assert not any("x-broker-replayed" in each.headers for each in answers)
    settled = (await floor.settlements()).values()
    assert sorted(each["kind"] for each in settled) == ["captured"] * 3 + ["released"] * 2


async def _failures(doomed: list[asyncio.Task[httpx.Response]]) -> list[BaseException | Any]:
    return await asyncio.gather(*doomed, return_exceptions=True)
