"""Several processes on one port: shared, watched, replaced, stopped together."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.live.bulletin import STALE_MS
from tests.conftest import broken_invariants
from tests.e2e.harness import Floor
from tests.e2e.process import BrokerProcess
from tests.e2e.stall import Stall
from tests.e2e.trade import Told, ask, chat, listen, try_to
from tests.plain import TRUSTS_NOBODY
from tests.waiting import until

pytestmark = pytest.mark.e2e


async def both_begun(floor: Floor) -> bool:
    """True when two processes have their leases."""
    processes = await floor.rows("SELECT id FROM broker_processes")
    return len(floor.brokers[0].workers()) == len(processes) == 2


async def answered(broker: BrokerProcess) -> dict[str, float]:
    """Calls that ended well by the worker that served them, as any of them tells."""
    async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:
        text = (await http.get(f"{broker.url}/metrics")).text
    families = {each.name: each for each in text_string_to_metric_families(text)}
    assert families["broker_price_version"].samples[0].labels == {}, "it is one market"
    return {
        each.labels["worker"]: each.value
        for each in families["broker_calls_answered"].samples
        if each.labels["status"] == "200"
    }


async def test_workers_share_a_port_and_one_that_is_killed_is_replaced(floor: Floor) -> None:
    broker = await floor.open_broker(workers=2)
    stall = Stall("acme", "common")
    await floor.list_stalls(stall)

    await until(lambda: both_begun(floor))
    stall.behave(tokens_per_s=200.0, output_tokens=20)
    told: list[Told] = []
    killed = asyncio.Event()

    async def trade() -> None:
        """Call until the kill and a little longer, each on a connection of its own."""
        last = 3
        while last:
            last -= killed.is_set()
            client = floor.client().copy(default_headers={"connection": "close"})
            told.append(Told())
            await ask(client, told[-1], **chat("common"))

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(trade())

        async def both_serve() -> bool:
            counts = await answered(broker)
            return len(counts) == 2 and min(counts.values()) >= 10

        await until(both_serve)
        victim = broker.workers()[1]
        os.kill(victim, signal.SIGKILL)
        killed.set()
    assert all(each.whole for each in told), "the client's own retry is enough"

    async def replaced() -> bool:
        now = broker.workers()
        return len(now) == 2 and victim not in now

    await until(replaced)
    await floor.release_orphans()
    settlements = await floor.settlements()
    for each in told:
        assert each.call_id is not None
        assert settlements[each.call_id]["charge_nanos"] == each.cost_nanos
    assert await broken_invariants(floor.database_url) == []


async def test_workers_stop_together_and_finish_what_they_began(floor: Floor) -> None:
    broker = await floor.open_broker(workers=2)
    stall = Stall("acme", "common")
    await floor.list_stalls(stall)
    await until(lambda: both_begun(floor))
    stall.behave(output_tokens=20, tokens_per_s=4.0)
    client = floor.client(max_retries=0)
    calls = [asyncio.create_task(listen(client, Told(), **chat("common"))) for _ in range(8)]

    async def under_way() -> bool:
        return stall.server.in_flight == 8

    await until(under_way)
    await broker.stop()
    assert broker.child.returncode == 0
    assert all(told.whole for told in await asyncio.gather(*calls))
    assert await floor.held() == 0
    assert await floor.rows("SELECT 1 FROM broker_processes") == [], "all leases are given up"


async def test_what_one_broker_has_under_way_another_counts_at_once(floor: Floor) -> None:
    first, second = [await floor.open_broker() for _ in range(2)]
    stall = Stall("acme", "common", capacity=2)
    await floor.list_stalls(stall)
    stall.behave(tokens_per_s=20.0, output_tokens=10_000)
    client = floor.client(first, max_retries=0)

    async def load(broker: BrokerProcess) -> float:
        return float((await floor.market(broker))[stall.name]["load"])

    async def becomes(wanted: float) -> float:
        """How long the second broker takes to know what the first knows."""

        async def known(broker: BrokerProcess) -> bool:
            return await load(broker) == wanted

        await until(lambda: known(first))
        begun_s = time.monotonic()
        await until(lambda: known(second))
        return time.monotonic() - begun_s

    lags_s = []
    for _ in range(4):
        call = asyncio.create_task(listen(client, Told(), **chat("common", max_tokens=10_000)))
        lags_s.append(await becomes(0.5))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        lags_s.append(await becomes(0.0))
    print("seen after ms:", [round(each * 1_000) for each in lags_s])
    # Agreed once a tick, the median would be half a second.
    assert statistics.median(lags_s) < 0.3

    call = asyncio.create_task(listen(client, Told(), **chat("common", max_tokens=10_000)))
    await becomes(0.5)
    begun_s = time.monotonic()
    await first.kill()

    async def gone() -> bool:
        return await load(second) == 0.0

    await until(gone)
    lag_s = time.monotonic() - begun_s
    print("the dead one's calls are gone after ms:", round(lag_s * 1_000))
    # By its silence alone it would be STALE_MS.
    assert lag_s < STALE_MS / 1_000 / 2
    await asyncio.gather(call, return_exceptions=True)
    await floor.release_orphans()


class Balancer:
    """Sends each call to one of the brokers that are ready, as a load balancer does."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.ready = {broker.url: True for broker in floor.brokers}
        self.told: list[Told] = []
        self.stopping = False

    async def watch(self) -> None:
        """Ask each broker again and again whether it is ready."""
        async with httpx.AsyncClient(timeout=2.0, verify=TRUSTS_NOBODY) as http:
            while not self.stopping:
                for url in self.ready:
                    try:
                        answer = await http.get(f"{url}/health/ready")
                    except httpx.HTTPError:
                        self.ready[url] = False
                    else:
                        self.ready[url] = answer.is_success
                await asyncio.sleep(0.05)

    async def call_on(self, number: int) -> None:
        """Call without a second try, streams and whole answers in turn."""
        turn = number
        while not self.stopping:
            ready = [each for each in self.floor.brokers if self.ready[each.url]]
            turn += 1
            client = self.floor.client(ready[turn % len(ready)], max_retries=0)
            self.told.append(Told())
            doing = listen if turn % 3 else ask
            await try_to(doing, client, self.told[-1], **chat("common"))


async def test_two_replicas_are_restarted_in_turn_and_no_call_fails(floor: Floor) -> None:
    for _ in range(2):
        await floor.open_broker(BROKER_STOP_NOTICE_S="2")
    stall = Stall("acme", "common")
    await floor.list_stalls(stall)
    stall.behave(tokens_per_s=50.0, output_tokens=20)
    balancer = Balancer(floor)
    async with asyncio.TaskGroup() as group:
        group.create_task(balancer.watch())
        callers = [group.create_task(balancer.call_on(each)) for each in range(6)]
        for broker in floor.brokers:
            begun = len(balancer.told)
            await broker.stop()
            assert broker.child.returncode == 0
            await broker.start()

            async def ready(url: str = broker.url, begun: int = begun) -> bool:
                return balancer.ready[url] and len(balancer.told) > begun + 20

            await until(ready)
        balancer.stopping = True
        await asyncio.gather(*callers)
    failures = [each.failure for each in balancer.told if each.failure is not None]
    assert not failures, failures
    settlements = await floor.settlements()
    for told in balancer.told:
        assert told.whole
        assert told.call_id is not None
        assert settlements[told.call_id]["charge_nanos"] == told.cost_nanos
