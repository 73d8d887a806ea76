"""Keeps several gateways up at once and loads them by turns, so that all see the same machine.

What a gateway costs is the CPU time of its whole process tree while it is loaded, over the calls
that it answered, as `wrk` counts them.
"""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.processes import tree_cpu_s, tree_rss_mb, wait_gone

READY_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """How to start one, and what to ask of it: `script` is a wrk script in Lua."""

    name: str
    start: Sequence[str]
    port: int
    script: str
    path: str = "/v1/chat/completions"
    ready: str = "/health"
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Load:
    """How it is loaded: rounds of so many seconds each."""

    seconds: int
    rounds: int
    connections: int


@dataclass(frozen=True)
class Round:
    """One gateway under load once."""

    cpu_us: float
    """Of each call."""
    calls: int
    failed: int
    rss_mb: float


async def compare(
    gateways: Sequence[Gateway], load: Load, folder: Path
) -> dict[str, dict[str, float]]:
    """Start all, and return the medians of each, its ratio to the first taken round by round."""
    async with AsyncExitStack() as stack:
        places = [(each, (await stack.enter_async_context(up(each))).pid) for each in gateways]
        rounds = await by_turns(places, load, folder)
    first = rounds[gateways[0].name]
    return {name: medians(rows, first) for name, rows in rounds.items()}


async def by_turns(
    places: Sequence[tuple[Gateway, int]], load: Load, folder: Path
) -> dict[str, list[Round]]:
    """Load gateways that are up, told with their process ids, one after the other in each round."""
    for each, _ in places:
        await _wrk(each, folder, 2, load.connections)
    rounds: dict[str, list[Round]] = {each.name: [] for each, _ in places}
    for _ in range(load.rounds):
        for each, pid in places:
            rounds[each.name].append(await one_round(each, pid, load, folder))
    return rounds


def medians(rows: Sequence[Round], first: Sequence[Round]) -> dict[str, float]:
    """Return the medians over rounds, and of the ratios to another gateway's rounds."""
    ratios = [row.cpu_us / other.cpu_us for row, other in zip(rows, first, strict=True)]
    return {
        "cpu_us": round(statistics.median(row.cpu_us for row in rows), 1),
        "ratio": round(statistics.median(ratios), 3),
        "calls": sum(row.calls for row in rows),
        "failed": sum(row.failed for row in rows),
        "rss_mb": round(max(row.rss_mb for row in rows), 1),
    }


@asynccontextmanager
async def up(gateway: Gateway) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a gateway until the block ends."""
    process = await asyncio.create_subprocess_exec(
        *gateway.start, env=os.environ | gateway.env, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.to_thread(_wait_ready, f"http://127.0.0.1:{gateway.port}{gateway.ready}")
        yield process
    finally:
        process.terminate()
        await wait_gone(process, 15)


async def one_round(gateway: Gateway, pid: int, load: Load, folder: Path) -> Round:
    """Load a gateway once."""
    before_s = tree_cpu_s(pid)
    printed = await _wrk(gateway, folder, load.seconds, load.connections)
    cpu_s = tree_cpu_s(pid) - before_s
    calls = int(_found(r"(\d+) requests in", printed))
    failed = sum(map(int, re.findall(r"(?:responses|connect|read|write|timeout):? (\d+)", printed)))
    return Round(cpu_s / max(calls, 1) * 1e6, calls, failed, tree_rss_mb(pid))


async def _wrk(gateway: Gateway, folder: Path, seconds: int, connections: int) -> str:
    script = folder / f"{gateway.name}.lua"
    script.write_text(gateway.script)
    process = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--timeout", "20"),
        *("-s", str(script), f"http://127.0.0.1:{gateway.port}{gateway.path}"),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(seconds + 30):
        output, _ = await process.communicate()
    return output.decode()


def _wait_ready(url: str) -> None:
    due = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < due:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"{url} is not ready within {READY_WITHIN_S:.0f} s")


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise SystemExit(f"wrk did not say what it counted:\n{text}")
    return match[1]
