"""What the broker adds to the gaps between the chunks of a stream.

A provider sends 64 chunks, one each 20 ms, that tell when they were sent. So many streams are read
direct and so many through the broker, side by side. A gap's excess is what it is longer on arrival
than it was when it was sent.
"""

from __future__ import annotations

import asyncio
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

from tests.benchmarks.gateways import broker, chat_script, provider
from tests.benchmarks.latencies import percentiles, request
from tests.benchmarks.side_by_side import up
from tests.benchmarks.stand import open_stand

STREAMS: Final = 16
_NAMED: Final = "benchmark-provider/e0"
_SENT: Final = re.compile(rb'"content":"(\d+) "')
_LIMIT_S: Final = 60.0


async def measure(folder: Path, streams: int, endpoints: int) -> dict[str, object]:
    """Return percentiles of the excess in ms: direct, through the broker, and what it adds."""
    async with provider("--interval-ms", "20") as upstream:
        url = f"http://127.0.0.1:{upstream}"
        async with open_stand(folder, url, endpoints) as stand:
            gateway = broker(stand, script=chat_script(stand.key, _NAMED, stream=True))
            async with up(gateway), asyncio.timeout(_LIMIT_S):
                direct: list[float] = []
                brokered: list[float] = []
                for at in range(-(-streams // STREAMS) + 1):
                    if at == 1:  # what came before was to warm up
                        direct.clear(), brokered.clear()
                    async with asyncio.TaskGroup() as group:
                        for _ in range(STREAMS):
                            group.create_task(_read(upstream, "m", "", direct))
                            group.create_task(_read(gateway.port, _NAMED, stand.key, brokered))
    told = {"direct": percentiles(direct), "broker": percentiles(brokered)}
    return {
        "mode": "stalls",
        "gaps": len(brokered),
        **told,
        "added_p99_ms": round(told["broker"]["p99"] - told["direct"]["p99"], 2),
    }


class _Listener(asyncio.Protocol):
    """Notes when each chunk was sent and when it came."""

    def __init__(self) -> None:
        self.times_ns: list[tuple[int, int]] = []
        self.ended = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, asked: bytes) -> None:
        self._transport.write(asked)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        data = self._tail + data
        end = 0
        for match in _SENT.finditer(data):
            self.times_ns.append((int(match[1]), now_ns))
            end = match.end()
        self._tail = data[end:]
        if b"[DONE]" in self._tail:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


async def _read(port: int, model: str, key: str, excess_s: list[float]) -> None:
    loop = asyncio.get_running_loop()
    _, listener = await loop.create_connection(_Listener, "127.0.0.1", port)
    listener.ask(request(model, key, stream=True))
    await listener.ended
    for (sent, came), (next_sent, next_came) in pairwise(listener.times_ns):
        excess_s.append(max((next_came - came) - (next_sent - sent), 0) / 1e9)
