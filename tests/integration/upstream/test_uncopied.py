"""What is sent to providers in pieces goes to the transport as the very pieces that came."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from broker.core.call import TensorBody
from broker.upstream.connection import Connection
from broker.upstream.hoard import Hoard, Part
from broker.upstream.request import Limits, Timeouts
from broker.upstream.response import HEAD, Response
from tests.fuzzed import Wire

LIMITS = Limits()


class Keeper:
    """A pool for one connection."""

    hoard = Part(Hoard(10**9))
    heard_at = 0.0

    def release(self, connection: Connection) -> None:
        """Nobody asks again."""

    def lost(self, connection: Connection) -> None:
        """Nobody asks again."""


class Noted(Wire):
    """Notes the pieces themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Any] = []

    def writelines(self, list_of_data: Any) -> None:
        self.pieces += list_of_data
        super().writelines(list_of_data)


async def sent(body: bytes | Sequence[bytes | memoryview]) -> Noted:
    loop, wire = asyncio.get_running_loop(), Noted()
    connection = Connection(Keeper(), LIMITS.head_bytes, loop)
    connection.connection_made(wire)
    now = loop.time()
    response = Response(Timeouts(), LIMITS, now, now + 9, loop.create_future(), 1_000, HEAD)
    connection.ask(b"POST / HTTP/1.1\r\n\r\n", body, response)
    connection.abort()
    return wire


async def test_the_blocks_that_a_body_was_read_into_are_sent_themselves() -> None:
    blocks = (memoryview(bytearray(b"a" * 200_000)), memoryview(bytearray(b"b" * 100_000)))
    body = TensorBody((), b"{}", blocks, 300_002)
    wire = await sent(body.pieces())
    assert [piece for piece in wire.pieces if isinstance(piece, memoryview)] == list(blocks)
    assert all(any(piece is block for piece in wire.pieces) for block in blocks)
    assert wire.sent.endswith(b"{}" + bytes(blocks[0]) + bytes(blocks[1]))


async def test_a_large_body_in_one_piece_is_not_joined_to_its_head() -> None:
    body = bytes(300_000)
    wire = await sent(body)
    assert any(piece is body for piece in wire.pieces)


def test_the_begin_of_a_body_is_not_joined_to_what_nobody_asks_for() -> None:
    payload = b'{"id":"1"}' + bytes(1_000)
    body = TensorBody((), payload, (memoryview(bytes(10)),), 1_020)
    assert body.begin(10) is payload
    assert body.begin(1_015) == payload + bytes(5)
    assert body.begin(1_021) == body.begin(None) == payload + bytes(10)


def test_where_the_head_came_alone_no_more_is_copied_than_the_json() -> None:
    blocks = (memoryview(b"ab" * 500), memoryview(b"cd" * 500), memoryview(b"ef" * 500))
    body = TensorBody((), b"", blocks, 3_000)
    assert body.begin(10) == b"ab" * 5
    assert body.begin(1_500) == b"ab" * 500 + b"cd" * 250
    assert body.begin(None) == b"ab" * 500 + b"cd" * 500 + b"ef" * 500
