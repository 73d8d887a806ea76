"""A provider as they are: a scripted server, the real agent in front of it, a key for receipts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import msgspec

from broker.embedded.port import free_port
from broker.flows.receipts.reconcile import reconcile
from broker.store.receipts.receipt_cases import Case
from provider_sdk.agent import Agent
from provider_sdk.client import BrokerClient
from provider_sdk.deployment import Deployment
from provider_sdk.protocol import (
    EndpointOffer,
    Receipt,
    ReceiptBatch,
    ReceiptResult,
    SignedReceipt,
    TokenBand,
)
from provider_sdk.receipt_key import KeyFile, ReceiptKey
from provider_sdk.signing import receipt_message
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.gateway.house import Consumer, House
from tests.waiting import until

BAND = TokenBand(
    floor_in="1", list_in="1", ceiling_in="1", floor_out="2", list_out="2", ceiling_out="2"
)
SCRIPT = Script(models=("lawyer",), output_tokens=20)


@dataclass
class Workshop:
    """What a test needs of the provider, its agent and its broker."""

    house: House
    agent: Agent
    server: ScriptedProvider
    client: BrokerClient
    keys: KeyFile
    deployment_id: str
    name: str = "acme/lawyer"
    _sequence: int = field(default_factory=time.time_ns)

    def behave(self, **changes: Any) -> None:
        """Have the server be as at first but for these fields of its script."""
        self.server.script = msgspec.structs.replace(SCRIPT, **changes)

    async def ask(self, consumer: Consumer, **more: Any) -> httpx.Response:
        """A chat with the provider."""
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": "Is it legal?"}],
            "max_tokens": 64,
        }
        return await consumer.http.post("/v1/chat/completions", json=body | more)

    async def serve(self, consumer: Consumer, **more: Any) -> UUID:
        """A chat that is served; its id."""
        answer = (await self.ask(consumer, **more)).raise_for_status()
        return UUID(answer.headers["x-broker-call-id"])

    async def receipts(self, call_id: UUID) -> list[dict[str, Any]]:
        """What the broker keeps of a call's receipts, as an operator sees them."""
        answer = await self.house.operator.get(f"/api/calls/{call_id}/receipts")
        shown: list[dict[str, Any]] = answer.raise_for_status().json()["receipts"]
        return shown

    async def has_receipt(self, call_id: UUID) -> bool:
        """Whether a call's receipt has come."""
        return bool(await self.receipts(call_id))

    @contextlib.asynccontextmanager
    async def silent(self) -> AsyncIterator[None]:
        """Let the agent gather receipts and send none; at the end of the block it sends them."""
        books, self.agent.receipts.books = self.agent.receipts.books, []
        yield
        self.agent.receipts.books = books
        await self.agent.receipts.flush(5)

    def receipt(self, call_id: UUID | str, **changes: Any) -> Receipt:
        """A receipt that says that all went well just now."""
        self._sequence += 1
        now_ms = time.time_ns() // 1_000_000
        said: dict[str, Any] = {
            "deployment_id": self.deployment_id,
            "sequence": self._sequence,
            "call_id": str(call_id),
            "attempt": 0,
            "model": "lawyer",
            "status": 200,
            "whole": True,
            "tokens_in": 10,
            "tokens_out": 20,
            "bytes_in": 100,
            "bytes_out": 200,
            "started_at_ms": now_ms,
            "first_byte_at_ms": now_ms,
            "ended_at_ms": now_ms,
        }
        return Receipt(**(said | changes))

    async def send(self, *signed: SignedReceipt) -> list[ReceiptResult]:
        """Bring receipts to the broker by hand."""
        reply = await self.client.receipts(ReceiptBatch(receipts=list(signed)))
        return reply.results

    async def reconcile(self) -> list[Case]:
        """Compare every call that is over; return the cases that were opened."""
        now = datetime.now(UTC) + timedelta(milliseconds=2)  # past the id of the call just made
        await asyncio.sleep(0.002)
        return await reconcile(self.house.engine, now, timedelta(0))

    async def cases(self, call_id: UUID, status: str = "open") -> list[dict[str, Any]]:
        """The cases of a call, as an operator sees them."""
        path = f"/api/cases?status={status}&limit=1000"
        shown = (await self.house.operator.get(path)).raise_for_status().json()["cases"]
        return [each for each in shown if each["call_id"] == str(call_id)]


def sign(receipt: Receipt, key: ReceiptKey, **changes: Any) -> SignedReceipt:
    """A receipt as an agent with that key sends it, with fields changed after it was signed."""
    text = msgspec.json.encode(receipt).decode()
    signed = SignedReceipt(
        deployment_id=receipt.deployment_id,
        key_id=key.id,
        receipt_json=text,
        signature=key.sign(receipt_message(text)),
    )
    return msgspec.structs.replace(signed, **changes)


@contextlib.asynccontextmanager
async def open_workshop(house: House, key: str, key_path: Path) -> AsyncIterator[Workshop]:
    """Run the provider until the block ends."""
    port = free_port()
    async with ScriptedProvider(SCRIPT) as server, BrokerClient(house.url, key) as client:
        lawyer = EndpointOffer(
            name="lawyer", model="lawyer-7b", upstream_model="lawyer", tasks=["chat"], price=BAND
        )
        deployment = Deployment(
            name="gpu1",
            url=f"http://127.0.0.1:{port}",
            kind="openai",
            capacity=50,
            server=server.url,
            front=f"127.0.0.1:{port}",
            receipts_key=str(key_path),
            endpoints=[lawyer],
        )
        agent = Agent([deployment], broker=house.url, key=key, retry_s=(0.02, 0.2), drain_s=1)
        agent.receipts.gather_s = 0.01
        task = asyncio.create_task(agent.run())
        [station] = agent.stations
        [book] = agent.receipts.books
        await until(lambda: station.listed and book.taken)
        await until(lambda: _is_ready(house))
        assert station.registered is not None
        deployment_id = station.registered.deployment_id
        yield Workshop(house, agent, server, client, KeyFile(key_path), deployment_id)
        agent.stop()
        await asyncio.wait_for(task, 10)


async def _is_ready(house: House) -> bool:
    listed = (await house.operator.get("/api/prices")).json()["endpoints"]
    return any(each["price"] is not None and each["health"] == "ready" for each in listed)
