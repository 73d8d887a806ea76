"""What a call costs in a market of many endpoints, next to the same in a market of 100.

Both brokers are up at once, each on servers of its own, with all heartbeats arriving at the
interval that it sets and prices ticking, and are loaded by turns: named and `auto`. What each costs
while nobody calls is told apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.benchmarks.crowd import Agent
from tests.benchmarks.gateways import broker, chat_script, provider
from tests.benchmarks.processes import tree_cpu_s
from tests.benchmarks.side_by_side import Gateway, Load, by_turns, medians, up
from tests.benchmarks.stand import open_stand

FEW: Final = 100
MODELS: Final = {"named": "benchmark-provider/e0", "auto": "auto"}
_SETTLES_S: Final = 5.0
_CALM_S: Final = 8.0

Place = tuple[Gateway, int]


async def measure(folder: Path, load: Load, endpoints: int) -> dict[str, object]:
    """Return what calls cost in both markets, and what they cost without calls."""
    places: list[Place] = []
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(provider())
        for count in (FEW, endpoints):
            places += await stack.enter_async_context(_market(folder, upstream, count))
        await asyncio.sleep(_SETTLES_S)
        pids = {
            str(count): pid for count, (_, pid) in zip((FEW, endpoints), places[::2], strict=True)
        }
        calm = await _calm(pids)
        places.sort(key=lambda place: place[0].name.split("-")[0])
        rounds = await by_turns(places, load, folder)
    told: dict[str, object] = {"mode": "market", "endpoints": endpoints}
    for model in MODELS:
        few, many = rounds[f"{model}-{FEW}"], rounds[f"{model}-{endpoints}"]
        told[model] = {
            "cpu_us_at_100": medians(few, few)["cpu_us"],
            "cpu_us": medians(many, few)["cpu_us"],
            "ratio": medians(many, few)["ratio"],
            "calls": [sum(each.calls for each in rows) for rows in (few, many)],
            "failed": sum(each.failed for each in (*few, *many)),
            "rss_mb": medians(many, few)["rss_mb"],
        }
    return told | {"cpu_ms_per_s_without_calls": calm}


async def _calm(pids: dict[str, int]) -> dict[str, float]:
    """Return the CPU milliseconds a second of processes that nobody calls."""
    before_s = {name: tree_cpu_s(pid) for name, pid in pids.items()}
    await asyncio.sleep(_CALM_S)
    return {
        name: round((tree_cpu_s(pid) - before_s[name]) / _CALM_S * 1e3, 1)
        for name, pid in pids.items()
    }


@asynccontextmanager
async def _market(folder: Path, upstream: int, endpoints: int) -> AsyncIterator[list[Place]]:
    """Run a broker with so many endpoints, whose agent beats."""
    own = folder / str(endpoints)
    own.mkdir()
    own.chmod(0o711)
    async with open_stand(own, f"http://127.0.0.1:{upstream}", endpoints) as stand:
        gateway = broker(stand, script="")
        async with up(gateway) as process:
            beating = asyncio.create_task(Agent(gateway.port, stand.signing_keys).run())
            try:
                yield [
                    (
                        replace(
                            gateway,
                            name=f"{name}-{endpoints}",
                            script=chat_script(stand.key, model),
                        ),
                        process.pid,
                    )
                    for name, model in MODELS.items()
                ]
            finally:
                beating.cancel()
                await asyncio.wait([beating])
