"""What memory a broker takes: with a large catalog, with many streams under way, under load.

    python -m tests.benchmarks.memory [--market N] [--streams N] [--seconds S] [--taught PIECES]

Resident memory of one `broker serve`, which the kernel tells. Streams are measured first, in a
process that has served little, so that no memory that a load has left behind is taken for theirs:
all stand open at once, slow, their callers reading. Then comes the load: callers one after the
other, named and `auto`, whole and streamed, with all heartbeats arriving and prices ticking. With
`--taught` the market knows ten domains and so much evidence. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from tests.benchmarks.crowd import Agent, Caller, Callers, body_of, memory_kb, open_broker, rss_kb
from tests.benchmarks.paced import Pace, open_upstream
from tests.benchmarks.processes import stop_when_told
from tests.benchmarks.stand import FAMILY, Stand, open_stand
from tests.benchmarks.taught import teach

NAMED = "benchmark-provider/e0"
PROMPT = "Where is my order?"
WARM_CALLS = 200
CONNECTIONS = 32
SETTLES_S = 3.0


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--market", type=int, default=10_000, help="registered endpoints")
    parser.add_argument("--streams", type=int, default=1_000, help="under way at once")
    parser.add_argument("--seconds", type=float, default=20.0, help="of load")
    parser.add_argument("--taught", type=int, default=0, help="pieces of evidence, of ten domains")
    stop_when_told()
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


async def run(options: argparse.Namespace) -> dict[str, object]:
    """Bring everything up, measure, and return the figures."""
    pace = Pace()
    with tempfile.TemporaryDirectory(prefix="broker-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        async with (
            open_upstream(pace) as upstream,
            open_stand(folder, upstream, options.market) as stand,
        ):
            prompts = await teach(stand, options.taught) if options.taught else [PROMPT]
            async with open_broker(stand.env) as place:
                return await _measure(stand, place, options, pace, prompts)


async def _measure(
    stand: Stand,
    place: tuple[int, int],
    options: argparse.Namespace,
    pace: Pace,
    prompts: Sequence[str],
) -> dict[str, object]:
    """Return the figures of a broker, whose port and process id are its `place`."""
    port, pid = place
    figures: dict[str, object] = {"endpoints": options.market, "pieces": options.taught}
    figures["rss_ready_mb"] = _mb(pid)
    beating = asyncio.create_task(Agent(port, stand.signing_keys).run())
    try:
        callers = Callers(port, stand.key)
        await _load(callers, prompts, WARM_CALLS)
        await asyncio.sleep(SETTLES_S)
        figures["rss_warm_mb"] = _mb(pid)
        if options.streams:
            figures |= await _streams((port, pid, stand.key), options, pace)
        begun_s = time.monotonic()
        figures["load_calls"] = await _load(callers, prompts, None, begun_s + options.seconds)
        figures["rss_load_mb"] = _mb(pid)
        kinds = memory_kb(pid)
        figures["anonymous_load_mb"] = round(kinds["Anonymous"] / 1_000, 1)
        callers.close()
    finally:
        beating.cancel()
    return figures


async def _streams(
    place: tuple[int, int, str], options: argparse.Namespace, pace: Pace
) -> dict[str, object]:
    """Return what so many streams take while all are under way, each from an endpoint of its own
    as far as there are so many. `place`: port and process id of the broker, and a key."""
    port, pid, key = place
    pace.pieces, pace.every_s = 30, 1.0
    callers = [await Caller.connect(port, key) for _ in range(options.streams)]
    await asyncio.sleep(1.0)
    connected_kb = rss_kb(pid)
    told = []
    for number, caller in enumerate(callers):
        named = f"benchmark-provider/e{number % options.market}"
        told.append(caller.ask(body_of(named, stream=True)))
        await asyncio.sleep(0.005)
    await asyncio.gather(*(caller.begun() for caller in callers))
    await asyncio.sleep(SETTLES_S)
    under_way = sum(not each.done() for each in told)
    during_kb = rss_kb(pid)
    statuses = Counter(await asyncio.gather(*told))
    for caller in callers:
        caller.leave()
    await asyncio.sleep(1.0)
    pace.pieces, pace.every_s = 16, 0.05
    return {
        "streams_under_way": under_way,
        "streams_told": {str(status): count for status, count in statuses.items()},
        "stream_kb": round((during_kb - connected_kb) / max(under_way, 1), 1),
        "rss_streams_mb": round(during_kb / 1_000, 1),
        "rss_streams_over_mb": _mb(pid),
    }


async def _load(
    callers: Callers, prompts: Sequence[str], calls: int | None, until_s: float = float("inf")
) -> int:
    """Have so many calls made, or until so late, by callers who do not wait; return how many."""
    kinds = cycle(
        body
        for prompt in prompts
        for body in (
            body_of(NAMED, prompt=prompt),
            body_of("auto", prompt=prompt),
            body_of(NAMED, stream=True, prompt=prompt),
            body_of(FAMILY, prompt=prompt),
        )
    )
    made = 0

    async def call_on() -> None:
        nonlocal made
        while (calls is None or made < calls) and time.monotonic() < until_s:
            made += 1
            await callers.ask(next(kinds))

    await asyncio.gather(*(call_on() for _ in range(CONNECTIONS)))
    return made


def _mb(pid: int) -> float:
    return round(rss_kb(pid) / 1_000, 1)


if __name__ == "__main__":
    main()
