"""The agent registers, proves, and stays alive, whatever becomes of the broker."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from provider_sdk.agent import Agent
from provider_sdk.deployment import Deployment
from provider_sdk.protocol import ProbeReport
from provider_sdk.testing.broker import FakeBroker
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.provider_sdk.offers import fronted
from tests.waiting import until


@asynccontextmanager
async def running(
    broker: FakeBroker, *deployments: Deployment, **more: Any
) -> AsyncIterator[Agent]:
    agent = Agent(
        deployments, broker=broker.url, key=broker.key, retry_s=(0.02, 0.1), drain_s=1, **more
    )
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        agent.stop()
        await asyncio.wait_for(task, 10)


async def test_it_registers_proves_by_its_front_and_sends_signed_heartbeats(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    started_ns = time.time_ns()
    async with running(broker, fronted(provider.url), fronted(provider.url, "gpu2")):
        await until(lambda: len(broker.heartbeats) >= 8)
    assert [verified.status for verified in broker.verifications] == ["listed", "listed"]
    assert not broker.doubted
    assert any(len(batch.heartbeats) == 2 for batch in broker.batches)
    for deployment_id in ("dep-gpu1", "dep-gpu2"):
        beats = [b for b in broker.heartbeats if b.deployment_id == deployment_id]
        sequences = [beat.sequence for beat in beats]
        assert sequences == sorted(set(sequences))
        assert sequences[0] >= started_ns
        assert beats[0].status == "ready"
        assert beats[0].load.running == 0


async def test_many_deployments_beat_in_batches_of_a_size_that_holds_up_nobody(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    three = [fronted(provider.url, f"gpu{number}") for number in range(3)]
    async with running(broker, *three, batch_max=2):
        await until(lambda: len({each.deployment_id for each in broker.heartbeats}) == 3)
    assert {len(batch.heartbeats) for batch in broker.batches} <= {1, 2}
    assert not broker.doubted


async def test_the_load_of_the_server_is_told(
    broker: FakeBroker, provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    provider.script = Script(capacity=1, stall=True)
    body = {"model": "scripted", "messages": []}
    url = f"{provider.url}/v1/chat/completions"
    async with running(broker, fronted(provider.url)):
        calls = [asyncio.create_task(http.post(url, json=body)) for _ in range(3)]
        await until(lambda: broker.heartbeats and broker.heartbeats[-1].load.waiting == 2)
        assert broker.heartbeats[-1].load.running == 1
        provider.script = Script(refuse=True)
        await until(lambda: broker.heartbeats[-1].status == "down")
        provider.script = Script()
        await until(lambda: broker.heartbeats[-1].status == "ready")
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_slow_server_delays_no_heartbeat_of_another(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    async with (
        ScriptedProvider(Script(slow_heartbeat_ms=60_000)) as slow,
        running(broker, fronted(provider.url), fronted(slow.url, "slow")),
    ):
        await until(lambda: len(broker.heartbeats) >= 5)
        beats = {beat.deployment_id for beat in broker.heartbeats if beat.status == "ready"}
        assert beats == {"dep-gpu1"}


@pytest.mark.parametrize("away", ["refuse", "unavailable"])
async def test_it_outlives_a_broker_that_is_away_and_comes_back(
    broker: FakeBroker, provider: ScriptedProvider, away: Any
) -> None:
    async with running(broker, fronted(provider.url)):
        await until(lambda: len(broker.heartbeats) >= 2)
        broker.away = away
        await asyncio.sleep(0.3)
        before = len(broker.heartbeats)
        broker.away = None
        await until(lambda: len(broker.heartbeats) >= before + 2)
    assert len(broker.registrations) == 1


async def test_it_tells_what_an_operator_must_approve_and_is_listed_once_that_is_done(
    broker: FakeBroker, provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    broker.needs_approval = True
    async with running(broker, fronted(provider.url)) as agent:
        await until(lambda: broker.verifications)
        await until(lambda: "broker approve dep-gpu1" in caplog.text)
        broker.needs_approval = False
        await until(lambda: agent.stations[0].listed)


async def test_it_waits_for_a_broker_that_is_not_there_yet(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    broker.away = "refuse"
    async with running(broker, fronted(provider.url)):
        await asyncio.sleep(0.2)
        broker.away = None
        await until(lambda: broker.heartbeats)


async def test_it_registers_again_when_the_broker_has_forgotten_it(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    async with running(broker, fronted(provider.url)) as agent:
        await until(lambda: broker.heartbeats and agent.stations[0].listed)
        broker.forget()
        await until(lambda: broker.known.get("dep-gpu1") and broker.known["dep-gpu1"].listed)
        seen = len(broker.heartbeats)
        await until(lambda: len(broker.heartbeats) > seen)
    assert len(broker.registrations) == 2
    assert {reason for _signed, reason in broker.doubted} == {"unknown_deployment"}


async def test_it_keeps_the_interval_that_the_broker_asks_for(
    broker: FakeBroker, provider: ScriptedProvider
) -> None:
    async with running(broker, fronted(provider.url)):
        await until(lambda: len(broker.heartbeats) >= 2)
        broker.interval_ms = 60_000
        seen = len(broker.batches)
        await until(lambda: len(broker.batches) > seen)
        seen = len(broker.batches)
        await asyncio.sleep(0.4)
        assert len(broker.batches) == seen


async def test_a_failed_probe_is_logged_with_its_words_and_tried_again(
    broker: FakeBroker, provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    broker.failing_probes = [ProbeReport(check="models", ok=False, detail="no model 'x' there")]
    with caplog.at_level(logging.INFO, "provider_sdk"):
        async with running(broker, fronted(provider.url)) as agent:
            await until(lambda: len(broker.verifications) >= 2)
            assert not agent.stations[0].listed
            assert "gpu1: models failed: no model 'x' there" in caplog.text
            await until(lambda: "for the same reasons as before" in caplog.text)
            assert caplog.text.count("gpu1: models failed") == 1, "it is told once"
            assert "gpu1 is checked again in 0." in caplog.text
            broker.failing_probes = ()
            await until(lambda: agent.stations[0].listed)


async def test_a_refused_key_is_logged_and_does_not_end_it(
    broker: FakeBroker, provider: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    right, broker.key = broker.key, "bk_other"
    agent = Agent([fronted(provider.url)], broker=broker.url, key=right, retry_s=(0.02, 0.05))
    task = asyncio.create_task(agent.run())
    await until(lambda: "This key is not known; again in 0." in caplog.text)
    broker.key = right
    await until(lambda: broker.heartbeats)
    agent.stop()
    await asyncio.wait_for(task, 5)


async def test_it_drains_before_it_stops(broker: FakeBroker, provider: ScriptedProvider) -> None:
    async with running(broker, fronted(provider.url)):
        await until(lambda: len(broker.heartbeats) >= 2)
    assert [beat.status for beat in broker.heartbeats].count("draining") == 1
    assert broker.heartbeats[-1].status == "draining"


FIVE_LINES = """\
import sys
import provider_sdk as sdk
price = sdk.CallBand(floor_call="0.001", list_call="0.002", ceiling_call="0.01")
endpoint = sdk.EndpointOffer(name="e", model="scripted", tasks=["chat"], price=price)
server, front, broker, key = sys.argv[1:]
sdk.run(
    sdk.Deployment(name="gpu1", url="http://" + front, kind="openai", capacity=4,
                   server=server, front=front, endpoints=[endpoint]),
    broker=broker, key=key,
)
"""


async def test_the_five_lines_run_and_drain_on_sigterm(
    broker: FakeBroker, provider: ScriptedProvider, tmp_path: Path
) -> None:
    front = fronted(provider.url).front
    assert front is not None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", FIVE_LINES),
        *(provider.url, front, broker.url, broker.key),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until(lambda: len(broker.heartbeats) >= 2, 15)
        assert broker.verifications[-1].status == "listed"
    finally:
        process.send_signal(signal.SIGTERM)
        _out, said = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0, said.decode()
    assert broker.heartbeats[-1].status == "draining"
    assert b"Traceback" not in said
