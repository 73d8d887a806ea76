"""One HTTP request as a handler sees it, and the means to answer it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Protocol

import h11

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
Headers = Sequence[tuple[bytes, bytes]]


class Wire(Protocol):
    """What an exchange needs of the connection it runs on."""

    async def next_data(self) -> bytes | None:
        """The next piece of the request's body; `None` at its end."""

    def write(self, event: h11.Event) -> None:
        """Hand an event to the socket without waiting for room."""

    def write_bytes(self, data: bytes) -> None:
        """Hand bytes to the socket as they are, past the protocol."""

    async def drain(self) -> None:
        """Wait until the socket takes more; `ConnectionResetError` when it is gone."""

    def close(self) -> None:
        """Close after what was written."""

    def reset(self) -> None:
        """Close at once, with a RST where the system lets us."""


class BodyTooLarge(Exception):
    """The request's body is larger than the handler wants to hold."""


class Exchange:
    """One request, and the means to answer it."""

    def __init__(self, wire: Wire, request: h11.Request) -> None:
        self._wire = wire
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii", "replace")
        self.headers: list[tuple[bytes, bytes]] = list(request.headers)
        self.started = False
        self.ended = False
        """Whether the whole answer has been handed to the socket."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str:
        """The first header of that name, or the empty string."""
        wanted = name.lower().encode("ascii")
        return next((v.decode("latin-1") for n, v in self.headers if n == wanted), "")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body of the request as it comes."""
        while (data := await self._wire.next_data()) is not None:
            yield data

    async def body(self, limit_bytes: int = 64 * 1024 * 1024) -> bytes:
        """The whole body of the request; `BodyTooLarge` above the limit."""
        parts: list[bytes] = []
        size = 0
        async for data in self.chunks():
            size += len(data)
            if size > limit_bytes:
                raise BodyTooLarge(f"the body is larger than {limit_bytes} bytes")
            parts.append(data)
        return b"".join(parts)

    async def start(self, status: int, headers: Headers = ()) -> None:
        """Send the head of the answer."""
        self.started = True
        reason = _REASONS.get(status, b"")
        self._wire.write(h11.Response(status_code=status, headers=list(headers), reason=reason))
        await self._wire.drain()

    async def send(self, data: bytes) -> None:
        """Send a piece of the answer; waits while the caller reads slowly."""
        if data and self.method != "HEAD":
            self._wire.write(h11.Data(data=data))
            await self._wire.drain()

    async def end(self) -> None:
        """End the answer."""
        self._wire.write(h11.EndOfMessage())
        self.ended = True
        await self._wire.drain()

    async def answer(
        self,
        status: int,
        body: bytes = b"",
        content_type: str = "application/json",
        headers: Headers = (),
    ) -> None:
        """Send a whole answer at once."""
        length = str(len(body)).encode("ascii")
        await self.start(
            status,
            [(b"content-type", content_type.encode()), (b"content-length", length), *headers],
        )
        await self.send(body)
        await self.end()

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes that need be no answer at all; the connection is of no use after them."""
        self.started = True
        self._wire.write_bytes(data)
        await self._wire.drain()

    def hang_up(self) -> None:
        """Close the connection after what was written (FIN), whether or not the answer is whole."""
        self._wire.close()

    def reset(self) -> None:
        """Break the connection (RST)."""
        self._wire.reset()
