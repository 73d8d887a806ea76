"""What an endpoint delivers when more is asked than it can serve: goodput by offered load.

One scripted provider with SLOTS slots that declares far more; callers who come whether or not the
ones before have been served, each with a deadline. Wall times of one machine mean little: what is
told are shares of the peak within one run.

    python -m tests.benchmarks.overload [SECONDS]
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx

from broker.embedded.port import free_port
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.benchmarks.processes import stop_when_told, wait_gone
from tests.benchmarks.stand import FAMILY, open_stand

SLOTS, SERVICE_MS = 4, 400.0
CAPACITY_PER_S = SLOTS * 1_000 / SERVICE_MS
DEADLINE_S = 4.0
LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
_BODY = {"model": FAMILY, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}


async def main(seconds: float) -> None:
    """Measure at each load, and print one line each and the JSON of all."""
    script = Script(models=(FAMILY,), latency_ms=SERVICE_MS, capacity=SLOTS)
    async with ScriptedProvider(script) as provider:
        with tempfile.TemporaryDirectory() as folder:
            async with open_stand(Path(folder), provider.url, 1) as stand:
                port = free_port()
                command = ("-m", "broker.cli.main", "serve", "--port", str(port))
                broker = await asyncio.create_subprocess_exec(
                    sys.executable, *command, env=os.environ | stand.env
                )
                try:
                    print(json.dumps(await _measure(port, stand.key, seconds)))
                finally:
                    broker.terminate()
                    await wait_gone(broker, 60.0)


async def _measure(port: int, key: str, seconds: float) -> dict[str, object]:
    headers = {"authorization": f"Bearer {key}", "x-broker-deadline-s": str(DEADLINE_S)}
    limits = httpx.Limits(max_connections=1_000, max_keepalive_connections=1_000)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers=headers, limits=limits, timeout=30.0
    ) as http:
        await _ready(http)
        goodput = {}
        for load in LOADS:
            told, control_ms = await _offer(http, load, seconds)
            goodput[load] = told[200] / seconds
            print(load, dict(told), f"control plane at most {control_ms:.0f} ms", flush=True)
    peak = max(goodput.values())
    return {
        "capacity_per_s": CAPACITY_PER_S,
        "goodput_per_s": {str(load): round(each, 1) for load, each in goodput.items()},
        "of_peak_at_three_times": round(goodput[LOADS[-1]] / peak, 3),
    }


async def _offer(
    http: httpx.AsyncClient, load: float, seconds: float
) -> tuple[Counter[int], float]:
    """Offer `load` times the capacity; return the statuses, and the slowest answer of the control
    plane. What the first half shows is not counted: limits are learned then."""
    told: Counter[int] = Counter()
    begun_s, slowest_ms = time.monotonic(), 0.0

    async def call() -> None:
        answer = await http.post("/v1/chat/completions", json=_BODY)
        if seconds <= time.monotonic() - begun_s < 2 * seconds:
            told[answer.status_code] += 1

    async with asyncio.TaskGroup() as group:
        count = 0
        while (now_s := time.monotonic() - begun_s) < 2 * seconds:
            while count < load * CAPACITY_PER_S * now_s:
                group.create_task(call())
                count += 1
            asked_s = time.monotonic()
            await http.get("/health")
            slowest_ms = max(slowest_ms, (time.monotonic() - asked_s) * 1_000)
            await asyncio.sleep(0.05)
    return told, slowest_ms


async def _ready(http: httpx.AsyncClient) -> None:
    while True:
        try:
            if (await http.get("/health/ready")).is_success:
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    stop_when_told()
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 6.0))
