"""One caller's connection: reads requests, has them served in their order, keeps the limits.

Hot path: no task but the request's own, no timer of its own (`Listener` looks at `due_at` of all
connections twice a second), one write for a whole answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

import httptools
import structlog

from broker.errors import BodyTooLarge, BodyTooSlow
from broker.server.limits import ServerLimits
from broker.server.request import Handler, Headers, Request

_log = structlog.get_logger()

_LINGER_S: Final = 10.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REFUSED: Final = {
    400: b"This is not a request that HTTP/1.1 knows.",
    408: b"The request did not come in time.",
    431: b"The head of the request is too large.",
}


class Server(Protocol):
    """What a connection needs of the server that it belongs to."""

    limits: ServerLimits
    loop: asyncio.AbstractEventLoop
    connections: set[Connection]
    stopping: bool
    body_bytes: int
    """Of all bodies that are kept until they have come whole."""

    def open(self, request: Request) -> tuple[Handler, bool]:
        """Return the handler of a request whose head has come, and whether it wants it whole."""


class _Refused(Exception):
    """Raised to the parser, which hands it back: the request is none that is served."""

    def __init__(self, status: int) -> None:
        self.status = status


class Connection(asyncio.Protocol):
    """The state of one connection: the request that comes, the one that is served, those ahead."""

    __slots__ = (
        "_ahead",
        "_discarded_bytes",
        "_head_bytes",
        "_headers",
        "_held_back",
        "_loop",
        "_parser",
        "_raw_bytes",
        "_reading",
        "_server",
        "_serving",
        "_target",
        "_transport",
        "closed",
        "due_at",
        "writable",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._transport: asyncio.Transport
        self._parser: Any = httptools.HttpRequestParser(self)
        self._headers: Headers = []
        self._target = b""
        self._head_bytes = 0
        """Of the head that is coming, -1 while none is."""
        self._raw_bytes = 0
        """What is left of a body that the parser does not read, after a wish to upgrade."""
        self._reading: Request | None = None
        self._serving: Request | None = None
        self._ahead: deque[Request] = deque()
        self._held_back = False
        self._discarded_bytes = 0
        self.writable: asyncio.Future[None] | None = None
        """Set while the caller is to take what waits before more is written."""
        self.due_at = 0.0
        """Loop time by which the caller must have made the next step."""
        self.closed = False

    # ------------------------------------------------------------------ told by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.due_at = self._loop.time() + self._server.limits.head_s
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            self._discard(data)
            return
        if self._raw_bytes:
            data = self._take_raw(data)
        begins = not self._head_bytes
        if self._reading is None:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.status if isinstance(cause, _Refused) else 400)
        else:
            if self._head_bytes:
                self._wait_for_head(begins)

    def connection_lost(self, _: Exception | None) -> None:
        self.closed = True
        self._server.connections.discard(self)
        self.resume_writing()
        self._ahead.clear()
        for request in {self._reading, self._serving} - {None}:
            assert request is not None
            self._forget_body(request)
            if not request.ended:
                request.left = True
                if request.listener is not None:
                    request.listener.leave()
                elif request.task is not None:
                    request.task.cancel()
        self._reading = self._serving = None
        self._parser = None  # it holds our methods, and we held it

    def pause_writing(self) -> None:
        if self.writable is None:
            self.writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # ------------------------------------------------------------------ told by the parser

    def on_message_begin(self) -> None:
        self._headers = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, limits = self._parser, self._server.limits
        method = parser.get_method().decode()
        request = Request(self, method, self._target, self._headers, parser.get_http_version())
        request.keep_alive = parser.should_keep_alive() and not self._server.stopping
        self._check_head(request)
        self._head_bytes = 0
        self._reading = request
        self.due_at = self._loop.time() + limits.body_s
        request.handler, request.whole = self._server.open(request)
        if not request.whole:
            self._queue(request)
        else:
            self._check_size(request)
        if request.trouble is None and (request.header(b"expect") or b"")[:4].lower() == b"100-":
            self._transport.write(_CONTINUE)

    def on_body(self, data: bytes) -> None:
        request = self._reading
        if request is None:
            return
        request.size_bytes += len(data)
        if request.ended or request.trouble is not None:
            self._discard(data)
        elif not request.whole:
            if request.listener is not None:
                request.listener.feed(data)
        else:
            request.chunks.append(data)
            self._server.body_bytes += len(data)
            if request.size_bytes > self._server.limits.body_bytes_max:
                self._give_up(request, _too_large(self._server.limits))

    def on_message_complete(self) -> None:
        request = self._reading
        if request is None or (self._parser.should_upgrade() and _declared(request)):
            return  # the parser takes the body of such a request for another protocol's bytes
        self._complete(request)

    # ------------------------------------------------------------------ told by the request

    def addresses(self) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
        """Return the caller's address and ours, as host and port."""
        info = self._transport.get_extra_info
        peer, own = info("peername"), info("sockname")
        return (tuple(peer[:2]) if peer else None, tuple(own[:2]) if own else None)

    def write(self, data: bytes) -> None:
        """Send bytes; what the caller does not take waits, see `Request.drain`."""
        if not self.closed:
            self._transport.write(data)

    def write_lines(self, pieces: Sequence[bytes]) -> None:
        """Send bytes without joining them."""
        if not self.closed:
            self._transport.writelines(pieces)

    def answered(self, request: Request) -> None:
        """The answer is complete: go on with the next request, or close."""
        self._serving = None
        if self.closed:
            return
        if not request.keep_alive or self._server.stopping:
            self.close()
            return
        limits = self._server.limits
        wait_s = limits.keep_alive_s if request.complete else limits.body_s
        self.due_at = self._loop.time() + wait_s
        if self._ahead:
            self._start(self._ahead.popleft())
        if self._held_back and not self._ahead:
            self.hold_back(back=False)

    def close(self) -> None:
        """Close once what has been written is sent, for which the caller has a little while.

        Who is still sending is heard for that while: a connection that is closed upon unread bytes
        is reset, and the answer lost with it.
        """
        if not self.closed:
            self.closed = True
            self.due_at = self._loop.time() + _LINGER_S
            if self._reading is not None or self._head_bytes:
                self.hold_back(back=False)
                self._transport.write_eof()
            else:
                self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever waits to be sent."""
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def hold_back(self, *, back: bool) -> None:
        """Read nothing more for a while, or go on."""
        if back is not self._held_back and not self._transport.is_closing():
            self._held_back = back
            (self._transport.pause_reading if back else self._transport.resume_reading)()

    # ------------------------------------------------------------------ told by the server

    @property
    def is_serving(self) -> bool:
        """True while a request is being answered."""
        return self._serving is not None

    @property
    def is_idle(self) -> bool:
        """True while nothing is asked."""
        return self._serving is None and self._reading is None and not self._ahead

    def close_if_idle(self) -> None:
        """The server is stopping: nothing more is asked here."""
        if self.is_idle:
            self.close()

    def overdue(self, now: float) -> None:
        """Look at what is due, and let go of who keeps us waiting."""
        serving, reading = self._serving, self._reading
        if self.closed:
            if now >= self.due_at:
                self._transport.abort()
        elif serving is not None:
            if now >= serving.due_at:
                self.abort()  # it does not take its answer
            elif reading is serving and not serving.complete and now >= self.due_at:
                self.abort()  # a body that is read as it comes, and does not come
        elif now >= self.due_at:
            if reading is not None and not reading.ended and reading.trouble is None:
                limit = f"The body of a request must come within {self._server.limits.body_s:g} s."
                self._give_up(reading, BodyTooSlow(limit))
            elif self._head_bytes and reading is None:
                self._refuse(408)
            else:
                self.close()

    # ------------------------------------------------------------------ its own steps

    def _wait_for_head(self, begins: bool) -> None:
        if self._head_bytes > self._server.limits.head_bytes_max:
            self._refuse(431)
        elif begins and self._serving is None:
            self.due_at = self._loop.time() + self._server.limits.head_s

    def _check_head(self, request: Request) -> None:
        """Raise for a head that is too large, or that two readers could read in two ways."""
        if self._head_bytes > self._server.limits.head_bytes_max:
            size = sum(len(name) + len(value) + 4 for name, value in request.headers)
            if size > self._server.limits.head_bytes_max:
                raise _Refused(431)
        hosts = 0
        for name, _ in request.headers:
            if name == b"host":
                hosts += 1
        if hosts > 1 or (request.method == "CONNECT") or request.version not in ("1.1", "1.0"):
            raise _Refused(400)

    def _check_size(self, request: Request) -> None:
        """Refuse, before it comes, a body that says it is too large or for which is no room."""
        limits = self._server.limits
        length = request.header(b"content-length")
        if length is not None and int(length) > limits.body_bytes_max:
            self._give_up(request, _too_large(limits))
        elif self._server.body_bytes > limits.bodies_bytes_max:
            busy = "The broker has too many large requests in hand."
            self._give_up(request, BodyTooLarge(busy, code="overloaded", status=503))

    def _give_up(self, request: Request, trouble: BodyTooLarge | BodyTooSlow) -> None:
        """Answer without the body; what still comes of it is thrown away."""
        request.trouble = trouble
        request.keep_alive = False
        self._forget_body(request)
        self._queue(request)

    def _discard(self, data: bytes) -> None:
        self._discarded_bytes += len(data)
        if self._discarded_bytes > self._server.limits.discarded_bytes_max:
            self._transport.abort()

    def _forget_body(self, request: Request) -> None:
        self._server.body_bytes -= sum(map(len, request.chunks))
        request.chunks = []

    def _complete(self, request: Request) -> None:
        self._reading = None
        request.complete = True
        if not request.whole:
            if request.listener is not None:
                request.listener.finish()
            return
        if request.trouble is not None:
            return
        chunks = request.chunks
        if chunks:
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._forget_body(request)
        self._queue(request)

    def _queue(self, request: Request) -> None:
        if self._serving is None and not self._ahead:
            self._start(request)
        else:
            self._ahead.append(request)
            # Whoever sends ahead is read on when what is here has been answered.
            self.hold_back(back=True)

    def _start(self, request: Request) -> None:
        self._serving = request
        request.task = self._loop.create_task(self._serve(request))

    async def _serve(self, request: Request) -> None:
        try:
            await request.handler(request)
        except Exception as error:
            if not request.left:
                _log.error("request_failed_unexpectedly", exc_info=error)
        finally:
            if not request.ended:
                self.close()  # what broke off must not be taken for whole

    def _refuse(self, status: int) -> None:
        """Say that this is no request, and close; answers under way are cut off, for what came
        after them cannot be told from them."""
        if self.closed:
            return
        if self._serving is not None:
            self._serving.keep_alive = False
            self._ahead.clear()
            self.hold_back(back=True)
            return
        body = _REFUSED[status]
        self._transport.write(
            b"HTTP/1.1 %d Refused\r\ncontent-type: text/plain\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (status, len(body), body)
        )
        self.close()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol, say h2c, in HTTP/1.1 all the same."""
        self._parser = httptools.HttpRequestParser(self)
        request = self._reading
        if request is not None:
            if request.header(b"transfer-encoding") is not None:
                self._refuse(400)
                return
            self._raw_bytes = _declared(request)
        if rest:
            self.data_received(rest)

    def _take_raw(self, data: bytes) -> bytes:
        piece, rest = data[: self._raw_bytes], data[self._raw_bytes :]
        self._raw_bytes -= len(piece)
        self.on_body(piece)
        if not self._raw_bytes and self._reading is not None:
            self._complete(self._reading)
        return rest


def _declared(request: Request) -> int:
    """Return the length of the body as its head says it, 1 for one in chunks, 0 for none."""
    if request.header(b"transfer-encoding") is not None:
        return 1
    return int(request.header(b"content-length") or 0)


def _too_large(limits: ServerLimits) -> BodyTooLarge:
    return BodyTooLarge(f"A request body may have at most {limits.body_bytes_max} bytes.")
