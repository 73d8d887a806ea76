"""The latency that the broker adds to a direct call at half load, with durable hold and capture.

First `wrk` finds how many calls a second the broker serves here; then calls are made through it at
half that rate whether or not those before have been answered (Poisson arrivals), and timed from the
moment that they were due. Direct calls, one for every DIRECT_EVERY, fall among them by lot: enough
to compare with, and few enough to leave the machine to the broker.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
import selectors
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from tests.benchmarks.gateways import PROMPT, broker, chat_script, provider
from tests.benchmarks.side_by_side import Load, one_round, up
from tests.benchmarks.stand import open_stand

_NAMED: Final = "benchmark-provider/e0"
DIRECT_EVERY: Final = 8


async def measure(folder: Path, load: Load, endpoints: int) -> dict[str, object]:
    """Return percentiles in ms, direct, through the broker, and what it adds."""
    async with provider() as upstream:
        url = f"http://127.0.0.1:{upstream}"
        async with open_stand(folder, url, endpoints) as stand:
            gateway = broker(stand, script=chat_script(stand.key, _NAMED))
            async with up(gateway) as process:
                most = await one_round(gateway, process.pid, Load(3, 1, load.connections), folder)
                rate_per_s = most.calls / 3 / 2
                direct = Place(upstream, request("m", ""))
                brokered = Place(gateway.port, request(_NAMED, stand.key))
                shares = [(direct, 1.0), (brokered, float(DIRECT_EVERY))]
                all_per_s = rate_per_s * (1 + 1 / DIRECT_EVERY)
                await offer(shares, all_per_s, 1.0)
                direct.took_s, brokered.took_s = [], []
                disk = percentiles(await asyncio.to_thread(disk_s, folder))
                late_s = await offer(shares, all_per_s, float(load.seconds * load.rounds))
    told = {"direct": percentiles(direct.took_s), "broker": percentiles(brokered.took_s)}
    return {
        "mode": "latency",
        "endpoints": endpoints,
        "most_per_s": round(most.calls / 3),
        "brokered_per_s": round(rate_per_s),
        "calls": len(brokered.took_s),
        "disk": disk,
        "asked_late": percentiles(late_s),
        **told,
        "added": {
            name: round(told["broker"][name] - told["direct"][name], 2) for name in ("p50", "p99")
        },
    }


def request(model: str, key: str, *, stream: bool = False) -> bytes:
    """Return the bytes of a call."""
    asked = (model.encode(), PROMPT.encode(), b',"stream":true' if stream else b"")
    body = b'{"model":"%b","max_tokens":64,"messages":[{"role":"user","content":"%b"}]%b}' % asked
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer %b\r\ncontent-length: %d\r\n\r\n%b"
        % (key.encode(), len(body), body)
    )


@dataclass(eq=False)
class Place:
    """Who is called, on as many connections as are needed, and how long each call took."""

    port: int
    request: bytes
    took_s: list[float] = field(default_factory=list)
    idle: list[Caller] = field(default_factory=list)

    async def call(self, due_s: float) -> None:
        """Make one call that was due at a loop time. Raises ConnectionError for any but a 200."""
        loop = asyncio.get_running_loop()
        if self.idle:
            caller = self.idle.pop()
        else:
            _, caller = await loop.create_connection(Caller, "127.0.0.1", self.port)
        await caller.ask(self.request)
        self.took_s.append(loop.time() - due_s)
        self.idle.append(caller)


class Caller(asyncio.Protocol):
    """One connection, on which sized answers are waited for."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._heard = b""
        self._answered: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def ask(self, request: bytes) -> None:
        """Send a request and wait for the whole of its answer."""
        self._heard = b""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._answered

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, ended, body = self._heard.partition(b"\r\n\r\n")
        told = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if self._answered is None or not ended or len(body) < int(told or 0):
            return
        if head.startswith(b"HTTP/1.1 200"):
            self._answered.set_result(None)
        else:
            self._answered.set_exception(ConnectionError(self._heard[:500].decode()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError())


async def offer(
    shares: Sequence[tuple[Place, float]], rate_per_s: float, seconds: float
) -> list[float]:
    """Call places, each by its share, at a rate, whoever has been answered; wait for all answers.
    Return how late each call was begun, in seconds."""
    loop, lots, late_s = asyncio.get_running_loop(), random.Random(1), list[float]()
    places, weights = [place for place, _ in shares], [weight for _, weight in shares]
    due_s = loop.time()
    end_s = due_s + seconds
    async with asyncio.TaskGroup() as group:
        while due_s < end_s:
            due_s += lots.expovariate(rate_per_s)
            await asyncio.sleep(max(due_s - loop.time(), 0))
            late_s.append(loop.time() - due_s)
            group.create_task(lots.choices(places, weights)[0].call(due_s))
    return late_s


def disk_s(folder: Path) -> list[float]:
    """Return how long a page takes to be durable, again and again, while nothing else is asked."""
    took_s = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(bytes(8_192))
            begun_s = time.monotonic()
            os.fdatasync(file.fileno())
            took_s.append(time.monotonic() - begun_s)
    return took_s


class FineSelector(selectors.EpollSelector):
    """Wakes at the microsecond, which is for calls that are due: epoll's own clock ticks by the
    millisecond, and calls would come in clumps."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for files that are ready, or for `timeout` seconds."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def fine_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are so fine."""
    return asyncio.SelectorEventLoop(FineSelector())


def percentiles(took_s: list[float]) -> dict[str, float]:
    """Return percentiles in ms."""
    ordered = sorted(took_s)
    told = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {
        name: round(ordered[int(share * len(ordered))] * 1e3, 2) for name, share in told.items()
    }
