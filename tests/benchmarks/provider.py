"""A provider for benchmarks: it answers at once, or in paced chunks that tell when they were sent.

    python -m tests.benchmarks.provider PORT [--chunks 64] [--interval-ms 0] [--burst 1]

KServe inferences get 4 kB of a tensor, whatever they bring; streams get `--chunks` events, each
`--burst` of them in one write, whose content is the time of sending in ns (CLOCK_MONOTONIC, the
same for all processes of a machine); all else on `/v1/` gets one completion.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Final, cast

import uvloop

_INFERRED: Final = (
    b'{"model_name":"m","model_version":"1","outputs":[{"name":"OUT","datatype":"FP32",'
    b'"shape":[1,1000],"parameters":{"binary_data_size":4000}}]}'
)
_TENSOR_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
    b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_INFERRED), len(_INFERRED) + 4_000, _INFERRED + bytes(4_000))
)
_COMPLETION: Final = (
    b'{"id":"c","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog."},'
    b'"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":24,"completion_tokens":10,"total_tokens":34}}'
)
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
    % (len(_COMPLETION), _COMPLETION)
)
_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_EVENT: Final = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"%d "},"finish_reason":null}]}\n\n'
)
_LAST: Final = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"id":"c","object":"chat.completion.chunk","created":1700000000,"model":"m",'
    b'"choices":[],"usage":{"prompt_tokens":24,"completion_tokens":64,"total_tokens":88}}\n\n'
    b"data: [DONE]\n\n"
)


class Caller(asyncio.Protocol):
    """One connection; it trusts its callers to send one sized request after the other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._transport: asyncio.Transport
        self._head = b""
        self._left = 0
        self._streams = False
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            self._head += data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            body = len(self._head) - end
            self._left = _length(self._head[:end]) - body
            self._streams = self._head.find(b'"stream":true', end) >= 0
        if not self._left:
            head, self._head = self._head, b""
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if self._streams:
            task = asyncio.get_running_loop().create_task(self._stream())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            infers = head.startswith(b"POST /v2/")
            self._transport.write(_TENSOR_ANSWER if infers else _ANSWER)

    async def _stream(self) -> None:
        options = self._options
        self._transport.write(_STREAM)
        for _ in range(0, options.chunks, options.burst):
            if self._transport.is_closing():
                return
            events = [_EVENT % time.monotonic_ns() for _ in range(options.burst)]
            self._transport.write(b"".join(map(_framed, events)))
            await asyncio.sleep(options.interval_ms / 1_000)
        self._transport.write(_framed(_LAST) + b"0\r\n\r\n")


def _length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r")[0] or 0)


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(options: argparse.Namespace) -> None:
    """Listen until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Caller(options), "127.0.0.1", options.port)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--chunks", type=int, default=64)
    parser.add_argument("--interval-ms", type=float, default=0)
    parser.add_argument("--burst", type=int, default=1)
    uvloop.run(serve(parser.parse_args()))
