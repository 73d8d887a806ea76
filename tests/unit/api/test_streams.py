"""How many streams may be open at once, and when one counts no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
from litestar.response import ServerSentEventMessage
from litestar.types import HTTPScope

from broker.api.streams import STREAMS_MAX, STREAMS_OF_ACCOUNT_MAX, CountedEvents, Streams
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


async def _told() -> AsyncIterator[ServerSentEventMessage]:
    yield ServerSentEventMessage(data="never")
