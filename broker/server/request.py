"""One HTTP request as a door sees it: what was asked, and the motions of an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

import msgspec

from broker.errors import BrokerError
from broker.upstream.pieces import PIECES_MAX, joined

Headers = list[tuple[bytes, bytes]]
Handler = Callable[["Request"], Awaitable[None]]
Address = tuple[str, int] | None

NEVER: Final = float("inf")
_JOINED_BYTES: Final = 65_536
"""Bodies up to this are copied behind their head; larger ones are handed over uncopied."""

STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


async def _unopened(_: Request) -> None:
    raise AssertionError("a request is opened before it is served")


class Carrier(Protocol):
    """The connection, as far as a request needs it."""

    writable: asyncio.Future[None] | None

    def write(self, data: bytes) -> None: ...
    def write_lines(self, pieces: Sequence[bytes]) -> None: ...
    def answered(self, request: Request) -> None: ...
    def hold_back(self, *, back: bool) -> None: ...
    def close(self) -> None: ...
    def make_room(self, which: Callable[[Request], bool]) -> bool: ...
    def addresses(self) -> tuple[Address, Address]: ...


class Request(msgspec.Struct, eq=False):
    """What was asked, and the answer to it: `answer` at once, or `begin`, `write` ..., `end`.

    Names of headers are lower case. `whole`: its handler begins when the body has come whole;
    else it begins at the head and reads the body off the connection as it comes. It is a struct
    because one is made in a quarter of the time of a class.
    """

    connection: Carrier
    method: str
    path: str
    raw_path: bytes
    query: bytes
    headers: Headers
    fields: dict[bytes, bytes]
    """The first header of each name."""
    version: str
    """Of HTTP: "1.1" or "1.0"."""
    handler: Handler = _unopened
    whole: bool = True
    in_pieces: bool = False
    """Its handler takes a large body in pieces: `body` and what follows it, `rest`."""
    body: bytes = b""
    rest: tuple[memoryview, ...] = ()
    """Views of memory that serves other requests afterwards; for the handler alone."""
    owner: Hashable = None
    """Whose room a large body takes, as the door has found out at the head."""
    held: object | None = None
    """Of a large body: for as long as this is there it counts."""
    chunks: list[bytes] = []
    size_bytes: int = 0
    complete: bool = False
    """The body has come to its end."""
    trouble: BrokerError | None = None
    """Why there is no whole body and never will be."""
    listener: Any = None
    """Of a handler that reads the body as it comes: told of pieces, the end, and a leaving."""
    told: object = None
    """What the door has found out at the head, for its handler."""
    also: bytes = b""
    """Header lines that any answer to it has, as the door has found out at the head."""
    keep_alive: bool = True
    begun: bool = False
    ended: bool = False
    left: bool = False
    """The caller has closed the connection before the answer was complete."""
    begun_at: float = 0.0
    """Loop time at which the head had come."""
    due_at: float = NEVER
    """Loop time by which the caller must have taken the answer."""
    task: asyncio.Task[None] | None = None
    _chunked: bool = False

    @property
    def repeats_a_header(self) -> bool:
        """True when a name is there twice."""
        return len(self.fields) != len(self.headers)

    @property
    def declared_bytes(self) -> int:
        """The length of the body as its head says it, 1 for one in chunks, 0 for none."""
        if self.header(b"transfer-encoding") is not None:
            return 1
        return int(self.header(b"content-length") or 0)

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the first header `name` (lower case)."""
        return self.fields.get(name)

    def keep(self, data: bytes) -> None:
        """Add a piece to the body that is coming, which has been counted."""
        self.chunks.append(data)
        if len(self.chunks) > PIECES_MAX:
            self.chunks = joined(self.chunks, self.size_bytes)

    def answer(self, status: int, head: bytes, body: bytes) -> None:
        """Send a whole answer. `head`: header lines, each with its line end."""
        assert not self.begun, "an answer begins once"
        self.begun = self.ended = True
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        first = b"%b%b%b%bcontent-length: %d\r\n\r\n" % (
            STATUS_LINES[status],
            head,
            self.also,
            closing,
            len(body),
        )
        if self.method == "HEAD":
            body = b""
        if len(body) <= _JOINED_BYTES:
            self.connection.write(first + body)
        else:
            self.connection.write_lines((first, body))
        self.connection.answered(self)

    def begin(self, status: int, head: bytes, piece: bytes = b"", *, sized: bool = False) -> None:
        """Send the head of an answer that comes in pieces, with the first of them if it is there;
        `sized`: the head says its length."""
        assert not self.begun, "an answer begins once"
        self.begun = True
        self._chunked = not sized and self.version == "1.1" and _may_have_body(status)
        if not sized and not self._chunked and _may_have_body(status):
            self.keep_alive = False  # an old client knows the end of the body by the connection's
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        first = b"%b%b%b%b%b\r\n" % (STATUS_LINES[status], head, self.also, framing, closing)
        self.connection.write(first + self._framed(piece))

    def write(self, piece: bytes) -> None:
        """Send a piece of the body; `await drain()` before the next when there may be many."""
        if framed := self._framed(piece):
            self.connection.write(framed)

    def end(self, piece: bytes = b"") -> None:
        """Send the last piece and the end of the answer."""
        assert self.begun, "an answer begins before it ends"
        self.ended = True
        if self._chunked and self.method != "HEAD":
            self.connection.write(self._framed(piece) + b"0\r\n\r\n")
        else:
            self.write(piece)
        self.connection.answered(self)

    def _framed(self, piece: bytes) -> bytes:
        if not piece or self.method == "HEAD":
            return b""
        return b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece

    def take_within(self, seconds: float) -> None:
        """Count the caller as gone when it has not taken the whole answer by then."""
        self.due_at = self.begun_at + seconds

    async def drain(self) -> None:
        """Wait until the caller has taken enough for more to be sent."""
        writable = self.connection.writable
        if writable is not None:
            await asyncio.shield(writable)

    def cut(self) -> None:
        """Close the connection, so that an answer that broke off is not taken for whole."""
        self.connection.close()


def make_request(
    connection: Carrier, method: str, target: bytes, headers: Headers, version: str
) -> Request:
    """Return the request of a head that has come."""
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("latin-1")
    if "%" in path:
        path = unquote(path)
    fields = dict(reversed(headers))
    return Request(connection, method, path, raw_path, query, headers, fields, version)


def header_lines(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return header lines as `answer` and `begin` take them."""
    lines = b""
    for pair in pairs:  # few: neither a list nor a frame for it
        lines += b"%b: %b\r\n" % pair
    return lines


def _may_have_body(status: int) -> bool:
    return status >= 200 and status not in (204, 304)
