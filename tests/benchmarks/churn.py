"""What it costs a broker when the catalog changes: among many endpoints one changes all the time.

    python -m tests.benchmarks.churn [--market N] [--seconds S]

A broker with N endpoints and one with a hundred, one after the other, both with agents whose
heartbeats arrive all the time: S seconds (as long as agents wait) without a change, then as many
with one each second, of the quality that one endpoint declares. `cpu_ms_a_change` is the CPU of the
broker, of the process that leads the price tick, beyond what it takes without; `late_ms` are the
99th percentile and the most that a question waited that is asked each five milliseconds, without
and with. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from itertools import count
from pathlib import Path
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.market.heartbeat import INTERVAL_MS_MAX
from broker.store import changes
from broker.store.database import create_engine
from tests.benchmarks.crowd import Agent, open_broker
from tests.benchmarks.processes import stop_when_told, tree_cpu_s
from tests.benchmarks.stand import open_stand

FEW = 100
AGENTS = 20
ASKED_EVERY_S = 0.005
_CHANGE = text(
    "UPDATE offers SET quality = :quality WHERE valid_to IS NULL AND endpoint_id = :endpoint"
)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--market", type=int, default=10_000, help="registered endpoints")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    stop_when_told()
    told = {str(size): asyncio.run(run(size, options.seconds)) for size in (FEW, options.market)}
    print(json.dumps({"seconds": options.seconds, "endpoints": told}))


async def run(endpoints: int, seconds: float) -> dict[str, object]:
    """Bring everything up, let the catalog change, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="broker-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        async with (
            open_stand(folder, "http://127.0.0.1:1", endpoints) as stand,
            open_broker(stand.env) as (port, pid),
        ):
            engine = create_engine(stand.env["DATABASE_URL"], connections_max=2)
            keys = list(stand.signing_keys.items())
            agents = [Agent(port, dict(keys[at::AGENTS])) for at in range(AGENTS)]
            # One after the other, so that heartbeats arrive all the time: a process looks for new
            # signing keys when they do.
            apart_s = INTERVAL_MS_MAX / 1e3 / AGENTS
            beating = [
                asyncio.create_task(_beat(agent, at * apart_s)) for at, agent in enumerate(agents)
            ]
            try:
                await asyncio.sleep(apart_s * AGENTS)
                quiet_s, late = await _watch(pid, port, seconds)
                changing = asyncio.create_task(_change(engine))
                busy_s, late_changing = await _watch(pid, port, seconds)
                changing.cancel()
            finally:
                for each in beating:
                    each.cancel()
                await asyncio.gather(*beating, return_exceptions=True)
                await engine.dispose()
    return {
        "cpu_ms_a_second": round(quiet_s / seconds * 1e3, 1),
        "cpu_ms_a_change": round((busy_s - quiet_s) / seconds * 1e3, 1),
        "late_ms": late,
        "late_ms_changing": late_changing,
    }


async def _beat(agent: Agent, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await agent.run()


async def _change(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT id FROM endpoints ORDER BY number"))
        endpoints: list[UUID] = list(rows.scalars())
    for turn in count():
        asked = {"quality": 0.5 + turn % 100 / 1_000, "endpoint": endpoints[turn % len(endpoints)]}
        async with engine.begin() as connection:
            await connection.execute(_CHANGE, asked)
            await changes.announce(connection, changes.CATALOG)
        await asyncio.sleep(1.0)


async def _watch(pid: int, port: int, seconds: float) -> tuple[float, list[float]]:
    """Return the CPU seconds that pass, and how long questions take at the 99th percentile, and
    at most, in ms."""
    begun_s, cpu_s, took_ms = time.monotonic(), tree_cpu_s(pid), list[float]()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        while (asked_s := time.monotonic()) < begun_s + seconds:
            await http.get("/health/live")
            took_ms.append((time.monotonic() - asked_s) * 1e3)
            await asyncio.sleep(ASKED_EVERY_S)
    took_ms.sort()
    late = [round(each, 1) for each in (took_ms[len(took_ms) * 99 // 100], took_ms[-1])]
    return tree_cpu_s(pid) - cpu_s, late


if __name__ == "__main__":
    main()
