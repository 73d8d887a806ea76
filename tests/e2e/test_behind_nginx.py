"""Brokers behind nginx, which is told what the compose file tells it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.http.aio as triton

from provider_sdk.testing.scripted import Script
from tests.e2e.harness import Floor
from tests.e2e.proxy import NGINX, proxied
from tests.e2e.stall import Stall
from tests.e2e.trade import Told, ask, chat, listen
from tests.plain import TRUSTS_NOBODY
from tests.waiting import PATIENCE_S, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(NGINX is None, reason="there is no nginx here"),
]
CALLERS = 4
# No late heartbeat of this process, which is busy, shall take the providers for away.
SETTINGS: dict[str, Any] = {"BROKER_STOP_NOTICE_S": "1", "BROKER_HEARTBEAT_INTERVAL_MS": "60000"}
NUMBERS = np.arange(4096, dtype=np.float32)


class Load:
    """Callers of all kinds, each calling again and again until told to stop."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self._key = url, key
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self.stopping = False

    async def run(self) -> None:
        """Call until it is to stop."""
        client = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self._key, timeout=PATIENCE_S, max_retries=0
        )
        server = triton.InferenceServerClient(self.url.removeprefix("http://"))
        doings = {
            "chat": lambda: ask(client, Told(), **chat("common")),
            "stream": lambda: listen(client, Told(), **chat("common")),
            "infer": lambda: self._infer(server),
        }
        async with client, server, asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                for kind, doing in doings.items():
                    group.create_task(self._call_on(kind, doing))

    async def _call_on(self, kind: str, doing: Any) -> None:
        while not self.stopping:
            try:
                await doing()
                self.served[kind] += 1
            except Exception as error:
                self.failed.append(f"{kind}: {error!r}")
            await asyncio.sleep(0.01)

    async def _infer(self, server: triton.InferenceServerClient) -> None:
        tensor = triton.InferInput("INPUT0", list(NUMBERS.shape), "FP32")
        tensor.set_data_from_numpy(NUMBERS)
        headers = {"authorization": f"Bearer {self._key}"}
        answer = await server.infer("sums", [tensor], headers=headers)
        assert np.array_equal(answer.as_numpy("OUTPUT0"), NUMBERS)


async def test_one_of_two_brokers_is_stopped_under_load_and_no_call_fails(
    floor: Floor, tmp_path: Path
) -> None:
    brokers = await asyncio.gather(*(floor.open_broker(**SETTINGS) for _ in "12"))
    sums = Stall("globex", "sums", price="0.001", script=Script(kind="kserve"))
    async with proxied(tmp_path, *brokers) as url:
        floor.door = url
        await floor.list_stalls(Stall("acme", "common"), sums)
        for path in ("/metrics", "/metrics/", "//metrics", "/%6detrics"):
            async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:
                assert (await http.get(url + path)).status_code == 404
        load = Load(url, floor.keys["shop"].text)
        running = asyncio.create_task(load.run())
        await _all_are_served(load)
        await brokers[0].stop()
        await _all_are_served(load)  # by the other
        load.stopping = True
        await running
    assert load.failed == []
    captured = [each for each in (await floor.settlements()).values() if each["charge_nanos"]]
    assert len(captured) == load.served.total()


async def _all_are_served(load: Load) -> None:
    """Wait until some more of each kind are."""
    before = Counter(load.served)

    async def served() -> bool:
        return all(load.served[kind] >= before[kind] + 8 for kind in ("chat", "stream", "infer"))

    await until(served)
