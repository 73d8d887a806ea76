"""A stream is closed however it ends, for closing is what cancels the call and pays for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from broker.gateway.openai import _send_stream
from pricing.book import Rate
from tests.fakes import requirements

TAB: Any = SimpleNamespace(
    call=SimpleNamespace(id_text=str(UUID(int=1)), wanted=requirements()),
    endpoint=SimpleNamespace(name="acme/small"),
    decision=SimpleNamespace(price_version=7),
    rate=Rate(500_000, 1_500_000, 0),
)


class Pieces:
    """A stream of three pieces that notes how it ended."""

    verdict = None

    def __init__(self) -> None:
        self.end = "never began"
        self.verdict = None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        self.end = "was left open"
        try:
            for piece in (b"a", b"b", b"c"):
                yield piece
            self.end = "ended"
        except GeneratorExit:
            self.end = "was closed"
            raise


class Wire:
    """Takes so many writes, then the caller has gone."""

    connection = SimpleNamespace(writable=None)

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[bytes] = []

    def begin(self, status: int, head: bytes) -> None:
        assert status == 200
        self.write(head)

    def write(self, piece: bytes) -> None:
        if len(self.sent) == self.room:
            raise ConnectionResetError
        self.sent.append(piece)

    def end(self) -> None:
        self.write(b"end")


async def test_a_stream_is_sent_whole() -> None:
    stream: Any = Pieces()
    wire: Any = Wire(99)
    await _send_stream(wire, TAB, stream)
    head, *pieces = wire.sent
    assert b"x-broker-endpoint: acme/small\r\n" in head
    assert pieces == [b"a", b"b", b"c", b"end"]
    assert stream.end == "ended"


@pytest.mark.parametrize("room", [0, 1, 2, 3])
async def test_a_stream_whose_caller_leaves_is_closed_even_before_its_head_was_sent(
    room: int,
) -> None:
    stream: Any = Pieces()
    wire: Any = Wire(room)
    with pytest.raises(ConnectionResetError):
        await _send_stream(wire, TAB, stream)
    assert stream.end == "was closed"
