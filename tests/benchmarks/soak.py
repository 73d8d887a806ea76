"""Whether a broker's memory stays as it is: a steady mixed load for half an hour.

    python -m tests.benchmarks.soak [MINUTES] [--market N] [--rate CALLS_PER_S]

Callers come at a fixed rate whether or not those before have been served: whole answers, streams,
calls whose provider fails, callers who leave in the middle, `auto`. All heartbeats arrive at the
interval that the broker sets, and prices tick. Resident memory is printed each ten seconds; the
last line is one JSON object with the drift, in percent, from the mean of the first fifth after
WARM_UP_SHARE of the time to that of the last fifth.

The callers go through all endpoints of the market one after the other, and of each the broker keeps
something from its first call on (`tests/unit/core/test_kept_of_endpoints.py`): until all were
called, which is `all_called_after_s`, the memory grows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from itertools import count
from pathlib import Path
from statistics import fmean

from tests.benchmarks.crowd import Agent, Callers, body_of, open_broker, rss_kb
from tests.benchmarks.paced import FAULT, Pace, open_upstream
from tests.benchmarks.processes import stop_when_told, tree_cpu_s
from tests.benchmarks.stand import FAMILY, open_stand

EVERY_S = 10.0
WARM_UP_SHARE = 1 / 6
PARTS = 5
LEAVES_AFTER_S = 0.1


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("minutes", type=float, nargs="?", default=30.0)
    parser.add_argument("--market", type=int, default=10_000, help="registered endpoints")
    parser.add_argument("--rate", type=float, default=300.0, help="calls a second")
    stop_when_told()
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Bring everything up, load it, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="broker-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        async with (
            open_upstream(Pace(pieces=16, every_s=0.05)) as upstream,
            open_stand(folder, upstream, options.market) as stand,
            open_broker(stand.env) as (port, pid),
        ):
            agent, callers = Agent(port, stand.signing_keys), Callers(port, stand.key)
            beating = asyncio.create_task(agent.run())
            told: Counter[str] = Counter()
            begun_s, cpu_begun_s = time.monotonic(), tree_cpu_s(pid)
            calling = asyncio.create_task(_call_on(callers, options, told))
            try:
                seen_kb = await _watch(pid, options.minutes * 60.0, told)
                cpu_share = (tree_cpu_s(pid) - cpu_begun_s) / (time.monotonic() - begun_s)
            finally:
                calling.cancel()
                beating.cancel()
                await asyncio.gather(calling, beating, return_exceptions=True)
                callers.close()
    return {
        "minutes": options.minutes,
        "endpoints": options.market,
        "calls_per_s": options.rate,
        "all_called_after_s": round(options.market / options.rate),
        "told": dict(told),
        "batches_of_heartbeats": agent.batches,
        "heartbeats_refused": dict(agent.refused),
        "batches_failed": agent.failed,
        "cpu_share": round(cpu_share, 3),
        **_drift(seen_kb),
    }


async def _watch(pid: int, seconds: float, told: Counter[str]) -> list[int]:
    """Return the resident memory, each ten seconds."""
    begun_s, seen_kb = time.monotonic(), []
    while (since_s := time.monotonic() - begun_s) < seconds:
        seen_kb.append(rss_kb(pid))
        print(f"{since_s:.0f} s, {seen_kb[-1] / 1_000:.1f} MB, {dict(told)}", flush=True)
        await asyncio.sleep(EVERY_S)
    return seen_kb


async def _call_on(callers: Callers, options: argparse.Namespace, told: Counter[str]) -> None:
    """Have calls made at the rate, of all kinds and to many endpoints."""
    begun_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in count():
            ahead_s = begun_s + number / options.rate - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            group.create_task(_call(callers, number, options.market, told))


async def _call(callers: Callers, number: int, market: int, told: Counter[str]) -> None:
    named = f"benchmark-provider/e{number * 7 % market}"
    kind = number % 10
    try:
        if kind < 5:
            status = await callers.ask(body_of(named))
            told[f"whole {status}"] += 1
        elif kind < 7:
            status = await callers.ask(body_of(named, stream=True))
            told[f"stream {status}"] += 1
        elif kind < 8:
            status = await callers.ask(body_of("auto" if number % 20 < 10 else FAMILY))
            told[f"auto {status}"] += 1
        elif kind < 9:
            status = await callers.ask(body_of(named, prompt=FAULT.decode()))
            told[f"fault {status}"] += 1
        else:
            await callers.ask_and_leave(body_of(named, stream=True), LEAVES_AFTER_S)
            told["left"] += 1
    except OSError as error:
        told[f"not connected: {error.errno}"] += 1


def _drift(seen_kb: list[int]) -> dict[str, float]:
    after = seen_kb[round(len(seen_kb) * WARM_UP_SHARE) :]
    size = max(len(after) // PARTS, 1)
    first, last = fmean(after[:size]), fmean(after[-size:])
    return {
        "rss_first_fifth_mb": round(first / 1_000, 1),
        "rss_last_fifth_mb": round(last / 1_000, 1),
        "rss_most_mb": round(max(seen_kb) / 1_000, 1),
        "drift_percent": round(100 * (last / first - 1), 2),
    }


if __name__ == "__main__":
    main()
