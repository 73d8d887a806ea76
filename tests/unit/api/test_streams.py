"""How many streams may be open at once, and when one counts no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
from litestar.response import ServerSentEventMessage
from litestar.types import HTTPScope

from broker.api.streams import (
    PIECE_BYTES,
    STREAMS_MAX,
    STREAMS_OF_ACCOUNT_MAX,
    CountedEvents,
    Streams,
    in_pieces,
)
from broker.errors import TooManyCalls

ONE, OTHER = UUID(int=1), UUID(int=2)


def test_an_account_has_its_share_open_and_no_more() -> None:
    streams = Streams("prices")
    places = [streams.take(ONE) for _ in range(STREAMS_OF_ACCOUNT_MAX)]
    with pytest.raises(TooManyCalls, match="account has 8 streams of prices"):
        streams.take(ONE)
    other = streams.take(OTHER)
    with places[0], other:
        pass
    assert len(streams) == STREAMS_OF_ACCOUNT_MAX - 1
    places[0] = streams.take(ONE)
    with pytest.raises(TooManyCalls):
        streams.take(ONE)


def test_all_accounts_together_have_so_many_open() -> None:
    streams = Streams("prices")
    places = [streams.take(UUID(int=number)) for number in range(STREAMS_MAX)]
    with pytest.raises(TooManyCalls, match="broker has 200 streams"):
        streams.take(OTHER)
    with places.pop():
        pass
    assert streams.take(OTHER)


async def test_a_stream_whose_caller_left_before_it_began_counts_no_more() -> None:
    streams = Streams("prices")
    kept = CountedEvents(streams.take(ONE), _told())
    answer = kept.to_asgi_response(None, None)
    assert len(streams) == 1

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        """Nobody is there."""

    await answer(cast("HTTPScope", {"type": "http"}), receive, send)
    assert len(streams) == 0


async def test_a_long_event_is_told_in_pieces_between_which_others_have_their_turn() -> None:
    event, turns = b"event: book\r\n" * 50_000, 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    pieces = [piece.encode() async for piece in in_pieces(event)]
    beside.cancel()
    assert b"".join(pieces) == event
    assert max(map(len, pieces)) == PIECE_BYTES
    assert turns >= len(pieces) > 1


async def _told() -> AsyncIterator[ServerSentEventMessage]:
    yield ServerSentEventMessage(data="never")
