"""An upstream for benchmarks that answers as it is asked: at once, in a slow stream, with a fault.

A prompt with FAULT in it is answered by 500, `stream` as the pace says. What it costs the machine
is little: no task and no parsing of JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

FAULT = b"have a fault"
_USAGE = b'"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}'
_HEAD = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT = (
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{%b},"finish_reason":%b}]%b}\n\n'
)


@dataclass(slots=True)
class Pace:
    """How streams go: so many pieces, one each `every_s`; may be changed at any time."""

    pieces: int = 16
    every_s: float = 0.05


class _Answering(asyncio.Protocol):
    """One connection of the broker's, which asks one thing after the other."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._due: asyncio.TimerHandle | None = None
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, _: Exception | None) -> None:
        if self._due is not None:
            self._due.cancel()

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, blank, body = self._came.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not blank or len(body) < length:
            return
        self._came = b""
        if FAULT in body:
            self._answer(b"500 Internal Server Error", b'{"error":{"message":"have one"}}')
        elif b'"stream":true' in body.replace(b" ", b""):
            self._transport.write(_STREAM_HEAD)
            self._go_on(0)
        else:
            usage = _USAGE % (12, 21)
            self._answer(
                b"200 OK",
                b'{"id":"c1","object":"chat.completion","created":1700000000,"model":"m",'
                b'"choices":[{"index":0,"message":{"role":"assistant","content":"Category: '
                b'shipping. It should be refunded."},"finish_reason":"stop"}],%b}' % usage,
            )

    def _answer(self, status: bytes, body: bytes) -> None:
        self._transport.write(_HEAD % (status, len(body)) + body)

    def _go_on(self, sent: int) -> None:
        if sent < self._pace.pieces:
            self._send(_EVENT % (b'"content":"word "', b"null", b""))
            self._due = self._loop.call_later(self._pace.every_s, self._go_on, sent + 1)
        else:
            usage = b"," + _USAGE % (sent, sent + 9)
            self._send(_EVENT % (b"", b'"stop"', usage) + b"data: [DONE]\n\n")
            self._transport.write(b"0\r\n\r\n")

    def _send(self, event: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))


@asynccontextmanager
async def open_upstream(pace: Pace) -> AsyncIterator[str]:
    """Listen, and say where."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answering(pace), "127.0.0.1", 0, backlog=2_048)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
