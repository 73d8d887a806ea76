"""Counts the streams of events that are open, for each holds a connection for as long as wanted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, cast
from uuid import UUID

from litestar.response import ServerSentEvent, ServerSentEventMessage
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from broker.errors import TooManyCalls

STREAMS_MAX: Final = 200
STREAMS_OF_ACCOUNT_MAX: Final = 8
PIECE_BYTES: Final = 1 << 17
"""Of a long event, of which so much waits for a caller, and not all of it."""
_AGAIN_S: Final = 10.0


class Streams:
    """The open streams of one kind in one process; `named` says what they are of."""

    def __init__(self, named: str) -> None:
        self._named = named
        self._open: Counter[UUID] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    def take(self, account_id: UUID) -> Place:
        """Return the place of one more. Raises TooManyCalls where the account has its share open,
        or the process all that it may."""
        if self._open[account_id] >= STREAMS_OF_ACCOUNT_MAX:
            told = f"Your account has {STREAMS_OF_ACCOUNT_MAX} streams of {self._named} open"
        elif self._open.total() >= STREAMS_MAX:
            told = f"The broker has {STREAMS_MAX} streams of {self._named} open"
        else:
            return Place(self._open, account_id)
        raise TooManyCalls(
            f"{told}: ask again when one has ended.", code="streams", retry_after_s=_AGAIN_S
        )


class Place:
    """One stream that counts, until the block ends."""

    def __init__(self, opened: Counter[UUID], account_id: UUID) -> None:
        self._open = opened
        self._account_id = account_id
        opened[account_id] += 1

    def __enter__(self) -> None:
        """It counts already."""

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._open[self._account_id] -= 1
        if not self._open[self._account_id]:
            del self._open[self._account_id]


class Piece(ServerSentEventMessage):
    """A part of an event that is written already."""

    def __init__(self, text: memoryview) -> None:
        super().__init__(data=None)
        self._text = text

    def encode(self) -> bytes:
        return bytes(self._text)


async def in_pieces(event: bytes) -> AsyncIterator[Piece]:
    """Yield an event of megabytes in pieces: whole it would be copied for each who follows, and
    nobody would be served meanwhile."""
    text = memoryview(event)
    for begin in range(0, len(text), PIECE_BYTES):
        yield Piece(text[begin : begin + PIECE_BYTES])
        await asyncio.sleep(0)


class CountedEvents(ServerSentEvent):
    """Events that take a place until their answer is over, whether or not the first was told.

    A caller may leave before; what would have told it is then kept by the error that cut it off,
    until the garbage collector comes by.
    """

    def __init__(
        self,
        place: Place,
        messages: AsyncIterator[ServerSentEventMessage],
        retry_ms: int | None = None,
    ) -> None:
        super().__init__(messages, retry_duration=retry_ms)
        self._place = place

    def to_asgi_response(self, *told: Any, **more: Any) -> ASGIResponse:
        answer = super().to_asgi_response(*told, **more)

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            with self._place:
                await answer(scope, receive, send)

        return cast("ASGIResponse", counted)
