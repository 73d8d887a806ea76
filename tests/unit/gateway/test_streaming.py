"""A stream is closed however it ends, for closing is what cancels the call and pays for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from broker.gateway.openai import _send_stream
from pricing.book import Rate

TAB: Any = SimpleNamespace(
    call=SimpleNamespace(id=UUID(int=1)),
    endpoint=SimpleNamespace(name="acme/small"),
    decision=SimpleNamespace(price_version=7),
    rate=Rate(500_000, 1_500_000, 0),
)


class Pieces:
    """A stream of three pieces that notes how it ended."""

    def __init__(self) -> None:
        self.end = "never began"

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
    """Takes so many messages, then the caller has gone."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.messages: list[Any] = []

    async def send(self, message: Any) -> None:
        if len(self.messages) == self.room:
            raise ConnectionResetError
        self.messages.append(message)


async def test_a_stream_is_sent_whole() -> None:
    stream: Any = Pieces()
    wire = Wire(99)
    await _send_stream(wire.send, TAB, stream)
    start, *pieces, end = wire.messages
    assert start["status"] == 200
    assert (b"x-broker-endpoint", b"acme/small") in start["headers"]
    assert [each["body"] for each in pieces] == [b"a", b"b", b"c"]
    assert all(each["more_body"] for each in pieces)
    assert end == {"type": "http.response.body", "body": b""}
    assert stream.end == "ended"


@pytest.mark.parametrize("room", [0, 1, 2, 3])
async def test_a_stream_whose_caller_leaves_is_closed_even_before_its_head_was_sent(
    room: int,
) -> None:
    stream: Any = Pieces()
    with pytest.raises(ConnectionResetError):
        await _send_stream(Wire(room).send, TAB, stream)
    assert stream.end == "was closed"
