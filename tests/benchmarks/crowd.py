"""Callers and agents for benchmarks, of a broker that is a process of its own.

A caller costs this process little, so that many fit: bytes are written and looked for, no more.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import httpx
import msgspec

from broker.embedded.port import free_port
from provider_sdk.agent import BATCH_MAX
from provider_sdk.protocol import Heartbeat, HeartbeatBatch, HeartbeatReply, LoadReport
from provider_sdk.signing import sign
from tests.benchmarks.processes import wait_gone

_STOP_S = 60.0
_END = b"\r\n0\r\n\r\n"


def body_of(model: str, *, stream: bool = False, prompt: str = "Where is my order?") -> bytes:
    """Return the body of a chat completion."""
    messages = [{"role": "user", "content": prompt}]
    return json.dumps(
        {"model": model, "max_tokens": 64, "stream": stream, "messages": messages},
        separators=(",", ":"),
    ).encode()


class Caller(asyncio.Protocol):
    """One caller on one connection, who asks one thing after the other."""

    def __init__(self, key: str) -> None:
        self._head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: broker\r\n"
            "content-type: application/json\r\n"
            f"authorization: Bearer {key}\r\ncontent-length: %d\r\n\r\n"
        ).encode()
        self._transport: asyncio.Transport
        self._told: asyncio.Future[int] | None = None
        self._begun: asyncio.Future[None] | None = None
        self._status = 0
        self._left = 0
        self._tail = b""
        self.closed = False

    @classmethod
    async def connect(cls, port: int, key: str) -> Caller:
        """Return a caller who has connected."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: cls(key), "127.0.0.1", port))[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, body: bytes) -> asyncio.Future[int]:
        """Ask; what is returned gets the status once the answer is whole, 0 for one cut short."""
        loop = asyncio.get_running_loop()
        self._told, self._begun = loop.create_future(), loop.create_future()
        self._status = self._left = 0
        self._tail = b""
        self._transport.write(self._head % len(body) + body)
        return self._told

    async def begun(self) -> None:
        """Wait until the answer has begun."""
        assert self._begun is not None
        await self._begun

    def leave(self) -> None:
        """Close the connection, whatever is under way."""
        self.closed = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._status:
            head, _, data = data.partition(b"\r\n\r\n")
            self._status = int(head[9:12])
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._left = int(length) if length else -1
            if self._begun is not None and not self._begun.done():
                self._begun.set_result(None)
        if self._left < 0:
            self._tail = (self._tail + data)[-len(_END) :]
            if self._tail == _END:
                self._tell(self._status)
        else:
            self._left -= len(data)
            if not self._left:
                self._tell(self._status)

    def connection_lost(self, _: Exception | None) -> None:
        self.closed = True
        self._tell(0)

    def _tell(self, status: int) -> None:
        for future in (self._told, self._begun):
            if future is not None and not future.done():
                future.set_result(status)  # type: ignore[arg-type]


class Callers:
    """Callers who wait for their turn, more of them when none is free."""

    def __init__(self, port: int, key: str) -> None:
        self._place = (port, key)
        self._free: deque[Caller] = deque()

    async def ask(self, body: bytes) -> int:
        """Have one of them ask, and return the status."""
        caller = self._free.pop() if self._free else None
        if caller is None or caller.closed:
            caller = await Caller.connect(*self._place)
        status = await caller.ask(body)
        if not caller.closed:
            self._free.append(caller)
        return status

    async def ask_and_leave(self, body: bytes, after_s: float) -> None:
        """Have somebody ask who leaves a while after the answer has begun."""
        caller = await Caller.connect(*self._place)
        caller.ask(body)
        await caller.begun()
        await asyncio.sleep(after_s)
        caller.leave()

    def close(self) -> None:
        """Close the connections that are free."""
        while self._free:
            self._free.pop().leave()


class Agent:
    """Beats for many deployments in batches, as often as it is asked to."""

    def __init__(self, port: int, signing_keys: Mapping[str, str]) -> None:
        self._url = f"http://127.0.0.1:{port}/api/provider/heartbeats"
        self._keys = signing_keys
        self._ids = list(signing_keys)
        self.batches = 0
        self.refused: Counter[str] = Counter()
        """By the reason told."""
        self.failed = 0
        self.interval_ms = 0
        """What the broker asked for last."""

    async def beat(self, http: httpx.AsyncClient) -> None:
        """Send one batch after the other."""
        for begin in range(0, len(self._ids), BATCH_MAX):
            batch = self._batch(self._ids[begin : begin + BATCH_MAX])
            answer = await http.post(
                self._url, content=batch, headers={"content-type": "application/json"}
            )
            reply = msgspec.json.decode(answer.raise_for_status().content, type=HeartbeatReply)
            self.batches += 1
            self.refused.update(each.reason for each in reply.results if not each.accepted)
            self.interval_ms = reply.interval_ms

    async def run(self) -> None:
        """Beat until cancelled."""
        async with httpx.AsyncClient(timeout=60.0) as http:
            while True:
                try:
                    await self.beat(http)
                except httpx.HTTPError:
                    self.failed += 1
                await asyncio.sleep(max(self.interval_ms, 1_000) / 1_000)

    def _batch(self, ids: Sequence[str]) -> bytes:
        now_ns = time.time_ns()
        load = LoadReport(running=1, waiting=0)
        beats = (
            Heartbeat(
                deployment_id=each,
                sequence=now_ns,
                sent_at_ms=now_ns // 1_000_000,
                status="ready",
                load=load,
            )
            for each in ids
        )
        signed = [sign(each, self._keys[each.deployment_id]) for each in beats]
        return msgspec.json.encode(HeartbeatBatch(heartbeats=signed))


@asynccontextmanager
async def open_broker(env: Mapping[str, str]) -> AsyncIterator[tuple[int, int]]:
    """Run `broker serve` as it is run where compiled files are kept; yield its port and pid."""
    port = free_port()
    own = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.cli.main", "serve", "--port", str(port)),
        env=own | env,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await _ready(http)
        yield port, process.pid
    finally:
        process.terminate()
        await wait_gone(process, _STOP_S)


async def _ready(http: httpx.AsyncClient) -> None:
    while True:
        try:
            if (await http.get("/health/ready")).is_success:
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(0.1)


def rss_kb(pid: int) -> int:
    """Return the resident memory of a process in kB."""
    return memory_kb(pid)["Rss"]


def memory_kb(pid: int) -> dict[str, int]:
    """Return what the kernel says of a process's memory, in kB by kind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
