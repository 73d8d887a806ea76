"""Many streams at once take little memory each."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from tests.benchmarks.crowd import Caller, body_of, rss_kb
from tests.e2e.harness import Floor
from tests.e2e.stall import Stall
from tests.waiting import until

pytestmark = pytest.mark.e2e

STREAMS = 200
STREAM_KB_MAX = 100


async def test_a_stream_under_way_takes_less_than_a_hundred_kilobytes(floor: Floor) -> None:
    broker = await floor.open_broker()
    stall = Stall("acme", "common", capacity=10_000)
    await floor.list_stalls(stall)
    port, key = urlsplit(broker.url).port, floor.keys["shop"].text
    assert port is not None
    await _listen(await _connect(port, key, 20))  # what is made once is made
    stall.behave(tokens_per_s=2.0, output_tokens=60)
    callers = await _connect(port, key, STREAMS)
    before_kb = rss_kb(broker.child.pid)
    told = [caller.ask(body_of("common", stream=True)) for caller in callers]
    await asyncio.gather(*(caller.begun() for caller in callers))
    await asyncio.sleep(1.0)  # two more pieces of each
    stream_kb = (rss_kb(broker.child.pid) - before_kb) / STREAMS
    assert not any(each.done() for each in told), "all are under way at once"
    for caller in callers:
        caller.leave()

    async def let_go() -> bool:
        return bool((await floor.market(broker))[stall.name]["load"] == 0.0)

    await until(let_go)
    assert stream_kb <= STREAM_KB_MAX, f"{stream_kb:.1f} kB each"


async def _connect(port: int, key: str, count: int) -> list[Caller]:
    return [await Caller.connect(port, key) for _ in range(count)]


async def _listen(callers: list[Caller]) -> None:
    statuses = await asyncio.gather(*(each.ask(body_of("common", stream=True)) for each in callers))
    assert set(statuses) == {200}
    for caller in callers:
        caller.leave()
