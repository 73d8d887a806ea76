"""Messages that are almost HTTP, cut anywhere, and a transport that does not need a socket."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

TOKENS = (
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"\0", b"\xff", b":", b",", b";", b"0"),
    *(b"content-length: 5\r\n", b"Content-Length: 5, 5\r\n", b"content-length: +5\r\n"),
    *(b"content-length: 99999999999999999999\r\n", b"content-length:5 \r\n", b"-1"),
    *(b"transfer-encoding: chunked\r\n", b"Transfer-Encoding: identity, chunked\r\n"),
    *(b"transfer-encoding : chunked\r\n", b"transfer-encoding:\x0bchunked\r\n"),
    *(b"host: a\r\nhost: b\r\n", b"connection: close\r\n", b"te: trailers\r\n"),
    *(b"connection: upgrade\r\nupgrade: h2c\r\n", b"x: \x7f\r\n", b"\x80: y\r\n"),
    *(b" folded\r\n", b"expect: 100-continue\r\n", b"trailer: x\r\n"),
    *(b"5\r\nhello\r\n", b"0\r\n\r\n", b'5;ext="\r\n"\r\n', b"ffffffffffffffff\r\n", b"5 \r\n"),
    *(b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/2.0 ", b"HTTP/1.1 200 OK\r\n", b"GET / HTTP/1.1\r\n"),
)


def fuzz(examples: int) -> settings:
    """Settings of a run that finds the same each time, but at night, when it looks further."""
    return settings(
        max_examples=examples * (20 if NIGHTLY else 1),
        derandomize=not NIGHTLY,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )


@st.composite
def messy(draw: st.DrawFn, templates: Sequence[bytes]) -> list[bytes]:
    """Some messages one behind the other, with some bytes put for others, in pieces."""
    whole = b"".join(draw(st.lists(st.sampled_from(templates), min_size=1, max_size=3)))
    bits = st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(whole)))
        end = min(begin + draw(st.sampled_from((0, 0, 1, 2, 8))), len(whole))
        whole = whole[:begin] + draw(bits) + whole[end:]
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    edges = [0, *cuts, len(whole)]
    pieces = [whole[begin:end] for begin, end in itertools.pairwise(edges)]
    return [each for each in pieces if each]


class Wire(asyncio.Transport):
    """Keeps what is written; closing is told to who holds it, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.paused = False
        self.closing = False

    def write(self, data: Any) -> None:
        if not self.closing:
            self.sent += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        return

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def get_write_buffer_size(self) -> int:
        return 0


def run(what: Any) -> Any:
    """Run a coroutine to its end; what a callback raised into the loop fails it."""
    raised: list[Any] = []

    async def bounded() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, why: raised.append(why))
        async with asyncio.timeout(10):
            told = await what
        assert not raised, raised
        return told

    loop = _loop()
    return loop.run_until_complete(bounded())


_LOOPS: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    # One for all examples: making a loop takes longer than an example.
    if not _LOOPS:
        _LOOPS.append(asyncio.new_event_loop())
    return _LOOPS[0]


def hear(connection: asyncio.BufferedProtocol, data: bytes) -> None:
    """Write bytes where a connection wants them, as the loop does with what the network brings."""
    while data:
        room = memoryview(connection.get_buffer(-1))
        size = min(len(room), len(data))
        room[:size] = data[:size]
        data = data[size:]
        connection.buffer_updated(size)
