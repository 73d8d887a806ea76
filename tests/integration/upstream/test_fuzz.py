"""The client, answered with what is almost HTTP: it hands out what was answered, or fails."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.upstream.connection import Connection
from broker.upstream.faults import AttemptFailed
from broker.upstream.hoard import Hoard, Part
from broker.upstream.request import Limits, Timeouts
from broker.upstream.response import HEAD, WHOLE, Response
from broker.upstream.sse import SseSplitter
from broker.upstream.streaming import StreamReader
from broker.upstream.unpacking import Unpacker
from tests.fuzzed import Wire, fuzz, messy, run

pytestmark = pytest.mark.timeout(900)

ANSWERS = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 429 Too Many\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
)
REQUEST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
LIMITS = Limits(head_bytes=2_000, high_water_bytes=100)
ROOM_BYTES = 10_000


class Keeper:
    """A pool for one connection."""

    def __init__(self) -> None:
        self.hoard = Part(Hoard(10**9))
        self.heard_at = 0.0
        self.released = 0
        self.gone = 0

    def release(self, connection: Connection) -> None:
        self.released += 1

    def lost(self, connection: Connection) -> None:
        self.gone += 1


async def played(pieces: list[bytes], wants: int, reset: bool) -> tuple[Response, Keeper, bytes]:
    """Ask once, answer with the pieces, and end the connection."""
    loop = asyncio.get_running_loop()
    keeper, wire = Keeper(), Wire()
    connection = Connection(keeper, LIMITS.head_bytes, loop)
    connection.connection_made(wire)
    now = loop.time()
    room = ROOM_BYTES if wants == WHOLE else LIMITS.high_water_bytes
    waiter = loop.create_future()
    response = Response(Timeouts(), LIMITS, now, now + 600, waiter, room, wants)
    connection.ask(REQUEST, b"{}", response)
    body = b""
    for piece in pieces:
        if wire.closing:
            break
        connection.data_received(piece)
        if wants == HEAD and response.chunks:
            body += await response.next_chunk() or b""
    if not wire.closing:
        if not reset:
            connection.eof_received()
        wire.closing = True
    connection.connection_lost(ConnectionResetError() if reset else None)
    assert response.done or response.failure is not None, "nobody waits for ever"
    assert not (response.done and response.failure is not None)
    assert waiter.done()
    assert keeper.gone == 1
    assert keeper.hoard.held_bytes == 0
    assert keeper.released <= 1
    body += b"".join(response.chunks)
    return response, keeper, body


def as_h11_reads(whole: bytes) -> tuple[int, bytes] | None:
    """The first answer that another parser makes of the bytes; None where it makes none."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(whole)
    parser.receive_data(b"")
    status, body = 0, b""
    try:
        while True:
            event: Any = parser.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, body
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.ProtocolError:
        return None


@given(messy(ANSWERS), st.sampled_from((HEAD, WHOLE)), st.booleans())
@fuzz(150)
def test_whatever_is_answered_ends_in_an_answer_or_a_failure(
    pieces: list[bytes], wants: int, reset: bool
) -> None:
    response, keeper, body = run(played(pieces, wants, reset))
    if not response.done:
        assert keeper.released == 0, "what broke off is of no further use"
        return
    theirs = as_h11_reads(b"".join(pieces))
    if theirs is not None and not reset:
        assert (response.status, body) == theirs


EVENTS = (
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\r\n\r\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    b": comment\n\n",
    b"data: [DONE]\n\n",
    b'event: x\rdata: {"choices":[]}\r\r',
    b'data: {"error":{"message":"no"}}\n\n',
)


@given(messy(EVENTS))
@fuzz(150)
def test_whatever_is_streamed_is_split_alike_wherever_it_is_cut(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    ours, theirs = SseSplitter(), SseSplitter()
    cut = [event for piece in pieces for event in ours.feed(piece)]
    single = [event for at in range(len(whole)) for event in theirs.feed(whole[at : at + 1])]
    assert [each.strip() for each in cut] == [each.strip() for each in single]
    assert b"".join(cut) + ours.rest() == whole


@given(messy(EVENTS), st.booleans())
@fuzz(150)
def test_whatever_is_streamed_passes_or_is_malformed(pieces: list[bytes], asked: bool) -> None:
    reader = StreamReader(usage_asked=asked, keep_text=True)
    for piece in pieces:
        passed = reader.feed(piece)
        assert len(passed) <= sum(map(len, pieces))
        if reader.failure is not None:
            return
    try:
        reader.finish()
    except AttemptFailed:
        return
    assert reader.tail(b"{}", (1, 1)).endswith(b"data: [DONE]\n\n")


@given(st.binary(max_size=200), st.sampled_from((b"gzip", b"deflate")))
@fuzz(150)
def test_whatever_is_said_to_be_compressed_unpacks_or_is_malformed(
    data: bytes, encoding: bytes
) -> None:
    try:
        unpacker = Unpacker(encoding, 1_000)
        unpacker.feed(data)
        unpacker.finish()
    except AttemptFailed:
        return
