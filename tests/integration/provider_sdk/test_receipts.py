"""The agent signs what its front served and sends it on, and no call ever waits for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from uuid_utils.compat import uuid7

from provider_sdk.agent import Agent
from provider_sdk.deployment import Deployment
from provider_sdk.receipt_key import KeyFile
from provider_sdk.receipts import NOTES_MAX, ReceiptBook
from provider_sdk.served import Served
from provider_sdk.signing import KeyUnusable, key_id_of, receipt_message
from provider_sdk.testing.broker import FakeBroker
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.provider_sdk.offers import fronted
from tests.waiting import until

CHAT = {"model": "scripted", "messages": [{"role": "user", "content": "Name a tree"}]}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


@asynccontextmanager
async def running(broker: FakeBroker, *deployments: Deployment) -> AsyncIterator[Agent]:
    agent = Agent(deployments, broker=broker.url, key=broker.key, retry_s=(0.02, 0.05), drain_s=1)
    agent.receipts.gather_s = 0.01
    task = asyncio.create_task(agent.run())
    try:
        await until(lambda: all(station.listed for station in agent.stations))
        yield agent
    finally:
        agent.stop()
        await asyncio.wait_for(task, 10)


@pytest.fixture
def key_path(tmp_path: Path) -> str:
    return str(tmp_path / "receipts.pem")


async def call(
    http: httpx.AsyncClient, deployment: Deployment, body: Any = CHAT, attempt: int = 0
) -> str:
    """One call as a broker sends it; its id."""
    call_id = str(uuid7())
    headers = {"x-request-id": call_id, "x-broker-attempt": str(attempt)}
    await http.post(f"{deployment.url}/v1/chat/completions", json=body, headers=headers)
    return call_id


def check_signatures(broker: FakeBroker) -> None:
    """Every receipt is signed by the key that was brought last."""
    offer = broker.key_offers[-1]
    public = bytes.fromhex(offer.claim_json.rpartition('":"')[2].rstrip('"}'))
    for signed in broker.signed_receipts:
        assert signed.key_id == key_id_of(public)
        Ed25519PublicKey.from_public_bytes(public).verify(
            bytes.fromhex(signed.signature), receipt_message(signed.receipt_json)
        )


async def test_each_call_of_a_broker_is_told_in_a_signed_receipt(
    broker: FakeBroker, provider: ScriptedProvider, http: httpx.AsyncClient, key_path: str
) -> None:
    provider.script = Script(output_tokens=9)
    deployment = fronted(provider.url, receipts_key=key_path)
    begun_ms = time.time_ns() // 1_000_000
    async with running(broker, deployment):
        whole = await call(http, deployment)
        streamed = await call(http, deployment, STREAM, attempt=3)
        await http.post(f"{deployment.url}/v1/chat/completions", json=CHAT)  # nobody's
        await until(lambda: len(broker.receipts) == 2)
    check_signatures(broker)
    first, second = broker.receipts
    assert [(r.call_id, r.attempt) for r in broker.receipts] == [(whole, 0), (streamed, 3)]
    assert {r.deployment_id for r in broker.receipts} == {"dep-gpu1"}
    assert {(r.status, r.whole, r.tokens_out, r.model) for r in broker.receipts} == {
        (200, True, 9, "scripted")
    }
    assert first.tokens_in == second.tokens_in
    assert first.tokens_in is not None
    assert begun_ms <= first.started_at_ms <= first.ended_at_ms <= second.ended_at_ms
    assert second.sequence > first.sequence >= begun_ms * 1_000_000


async def test_what_did_not_go_well_is_told_as_it_was(
    broker: FakeBroker, provider: ScriptedProvider, http: httpx.AsyncClient, key_path: str
) -> None:
    deployment = fronted(provider.url, receipts_key=key_path)
    async with running(broker, deployment):
        provider.script = Script(status=500)
        await call(http, deployment)
        provider.script = Script(reset=True)
        await call(http, deployment)
        provider.script = Script(cut_after_chunks=2)
        with pytest.raises(httpx.TransportError):
            await call(http, deployment, STREAM)
        provider.script = Script(stall=True)
        leaving = asyncio.create_task(call(http, deployment))
        await until(lambda: provider.in_flight == 1)
        leaving.cancel()
        await until(lambda: len(broker.receipts) == 4)
    told = [(r.status, r.whole, r.tokens_out) for r in broker.receipts]
    assert told[:3] == [(500, True, None), (None, False, None), (200, False, None)]
    assert told[3][1:] == (False, None)
    assert broker.receipts[2].bytes_out > 0


@pytest.mark.parametrize("away", ["refuse", "unavailable"])
async def test_calls_go_on_while_the_broker_is_away_and_receipts_arrive_when_it_is_back(
    broker: FakeBroker,
    provider: ScriptedProvider,
    http: httpx.AsyncClient,
    key_path: str,
    away: Any,
) -> None:
    deployment = fronted(provider.url, receipts_key=key_path)
    async with running(broker, deployment):
        await until(lambda: broker.key_offers)
        broker.away = away
        served = [await call(http, deployment) for _ in range(5)]
        await asyncio.sleep(0.1)
        served.append(await call(http, deployment))
        broker.away = None
        await until(lambda: {r.call_id for r in broker.receipts} == set(served))
    assert len({r.sequence for r in broker.receipts}) == len(broker.receipts) == len(served)
    check_signatures(broker)


async def test_what_is_left_is_sent_at_the_end(
    broker: FakeBroker, provider: ScriptedProvider, http: httpx.AsyncClient, key_path: str
) -> None:
    deployment = fronted(provider.url, receipts_key=key_path)
    async with running(broker, deployment) as agent:
        await until(lambda: broker.key_offers)
        agent.receipts.gather_s = 60
        served = await call(http, deployment)
        assert not broker.receipts
    assert [r.call_id for r in broker.receipts] == [served]


async def test_a_broker_that_knows_no_receipts_is_served_without(
    broker: FakeBroker, provider: ScriptedProvider, http: httpx.AsyncClient, key_path: str
) -> None:
    broker.takes_receipts = False
    deployment = fronted(provider.url, receipts_key=key_path)
    async with running(broker, deployment) as agent:
        book = agent.receipts.books[0]
        await until(lambda: not book.awaits_key)
        await call(http, deployment)
        assert book.left == 0
        broker.takes_receipts = True
        broker.forget()  # as one that was upgraded and asks for registration
        await until(lambda: broker.key_offers)
        served = await call(http, deployment)
        await until(lambda: [r.call_id for r in broker.receipts] == [served])


async def test_without_a_key_there_are_no_receipts(
    broker: FakeBroker, provider: ScriptedProvider, http: httpx.AsyncClient
) -> None:
    deployment = fronted(provider.url)
    async with running(broker, deployment) as agent:
        await call(http, deployment)
        assert not agent.receipts.books
    assert not broker.key_offers
    assert not broker.signed_receipts


async def test_a_rotated_key_is_endorsed_by_the_former_one_which_is_then_forgotten(
    broker: FakeBroker, provider: ScriptedProvider, http: httpx.AsyncClient, key_path: str
) -> None:
    deployment = fronted(provider.url, receipts_key=key_path)
    async with running(broker, deployment):
        await until(lambda: broker.key_offers)
    before = KeyFile(Path(key_path)).key()
    KeyFile(Path(key_path)).rotate()
    async with running(broker, deployment):
        await until(lambda: broker.key_offers[-1].endorsed_by is not None)
        await call(http, deployment)
        await until(lambda: broker.receipts)
    assert broker.key_offers[-1].endorsed_by == before.id
    assert KeyFile(Path(key_path)).former() is None
    check_signatures(broker)


async def test_a_key_that_cannot_be_used_stops_the_agent_before_it_begins(
    broker: FakeBroker, key_path: str
) -> None:
    Path(key_path).write_text("no key")
    Path(key_path).chmod(0o600)
    with pytest.raises(KeyUnusable):
        Agent([fronted("http://127.0.0.1:9", receipts_key=key_path)], broker=broker.url, key="bk")


def test_the_notes_are_bounded_and_the_oldest_are_lost(key_path: str) -> None:
    book = ReceiptBook("gpu1", KeyFile(Path(key_path)), asyncio.Event())
    for number in range(NOTES_MAX + 5):
        book.note(Served("c", 0, "m", 200, True, 1, 1, 1, 1, number, number, number))
    assert (book.left, book.lost) == (NOTES_MAX, 5)
    assert book.next() is None, "the broker does not know the deployment yet"
    book.deployment_id, book.taken = "d", True
    signed = book.next()
    assert signed is not None
    assert '"started_at_ms":5,' in signed.receipt_json
