"""Makes requests of the bytes that a caller sends: checks heads, keeps bodies or passes them on."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

import httptools

from broker.errors import BodyTooLarge, BodyTooSlow, BrokerError
from broker.server.form import Form, form_of
from broker.server.limits import ServerLimits
from broker.server.request import Carrier, Handler, Headers, Request, make_request
from broker.upstream import known_head

_VERSIONS: Final = frozenset({"1.1", "1.0"})


class Server(Protocol):
    """What a connection needs of the server that it belongs to."""

    limits: ServerLimits
    loop: asyncio.AbstractEventLoop
    stopping: bool
    body_bytes: int
    """Of all bodies that are kept until they have come whole."""

    def open(self, request: Request) -> tuple[Handler, bool]:
        """Return the handler of a request whose head has come, and whether it wants it whole."""


class Taker(Carrier, Protocol):
    """The connection, as far as the reader needs it."""

    def queue(self, request: Request) -> None:
        """Serve a request in its turn: it has come whole, or its handler reads it as it comes."""

    def invite(self) -> None:
        """Tell a caller that waits for it to send its body."""


class NotServed(Exception):
    """The bytes are no request that is served; `status` says why."""

    def __init__(self, status: int) -> None:
        self.status = status


class Reader:
    """The parser of one connection; `request` is the one whose body is coming, if one is."""

    __slots__ = (
        "_connection",
        "_form",
        "_forms_left",
        "_headers",
        "_last",
        "_midway",
        "_parser",
        "_raw_bytes",
        "_server",
        "_target",
        "head_bytes",
        "request",
    )

    def __init__(self, connection: Taker, server: Server) -> None:
        self._connection = connection
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        self._headers: Headers = []
        self._target = b""
        self._raw_bytes = 0
        """What is left of a body that the parser does not read, after a wish to upgrade."""
        self.head_bytes = 0
        """Of the head that is coming, 0 while none is."""
        self.request: Request | None = None
        self._last: Request | None = None
        """The one that has come whole with the latest bytes."""
        self._midway = False
        """True from the first byte of a message that the parser reads to its end."""
        self._form: Form | None = None
        self._forms_left = known_head.TRIED
        """So many heads in a row may be unlike the last one until no more are remembered."""

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises NotServed, after which nothing more can be told from what comes."""
        if self._raw_bytes:
            data = self._take_raw(data)
        begins, self._last = not self._midway, None
        if begins and self._form is not None and self._take_known(self._form, data):
            return
        if self.request is None:
            self.head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            raise NotServed(cause.status if isinstance(cause, NotServed) else 400) from None
        if self.head_bytes > self._server.limits.head_bytes_max:
            raise NotServed(431)
        last, self._last = self._last, None
        if begins and self._forms_left:
            self._forms_left -= 1
            self._form = None if last is None else form_of(data, last)

    def give_up(self) -> None:
        """The body did not come in time: have the request answered without it."""
        if self.request is not None:
            limit = f"The body of a request must come within {self._server.limits.body_s:g} s."
            self._do_without(self.request, BodyTooSlow(limit))

    def close(self) -> None:
        """Keep nothing of what has come."""
        if self.request is not None:
            self._forget(self.request)
        self.request = self._form = self._last = None
        self._parser = None  # it holds our methods, and we held it

    # ------------------------------------------------------------------ told by the parser

    def on_message_begin(self) -> None:
        self._midway = True
        self._headers = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, server = self._parser, self._server
        method, version = parser.get_method().decode(), parser.get_http_version()
        request = make_request(self._connection, method, self._target, self._headers, version)
        request.begun_at = server.loop.time()
        request.keep_alive = parser.should_keep_alive() and not server.stopping
        self._check_head(request)
        self.head_bytes = 0
        self.request = request
        request.handler, request.whole = server.open(request)
        if not request.whole:
            self._connection.queue(request)
        else:
            self._check_size(request)
        expected = request.header(b"expect")
        if expected is not None and request.trouble is None and expected[:4].lower() == b"100-":
            self._connection.invite()

    def on_body(self, data: bytes) -> None:
        request = self.request
        if request is None:
            return
        request.size_bytes += len(data)
        if request.ended or request.trouble is not None:
            if request.size_bytes > self._server.limits.discarded_bytes_max:
                raise NotServed(413)
        elif not request.whole:
            if request.listener is not None:
                request.listener.feed(data)
        else:
            request.chunks.append(data)
            self._server.body_bytes += len(data)
            if request.size_bytes > self._server.limits.body_bytes_max:
                self._do_without(request, _too_large(self._server.limits))

    def on_message_complete(self) -> None:
        request = self.request
        if request is None or (self._parser.should_upgrade() and _declared(request)):
            return  # the parser takes the body of such a request for another protocol's bytes
        self._complete(request)

    # ------------------------------------------------------------------ its own steps

    def _take_known(self, form: Form, data: bytes) -> bool:
        """Take a request that came whole and has the last one's head; False: it is another."""
        server = self._server
        if server.stopping or server.body_bytes > server.limits.bodies_bytes_max:
            return False
        request = form.match(data, server.limits.body_bytes_max)
        if request is None:
            return False
        self._forms_left = known_head.TRIED
        request.begun_at = server.loop.time()
        request.complete = True
        request.handler, request.whole = server.open(request)
        self._connection.queue(request)
        return True

    def _check_head(self, request: Request) -> None:
        """Raise for a head that is too large, or that two readers could read in two ways."""
        limit = self._server.limits.head_bytes_max
        if self.head_bytes > limit:
            size = sum(len(name) + len(value) + 4 for name, value in request.headers)
            if size > limit:
                raise NotServed(431)
        if request.repeats_a_header and [name for name, _ in request.headers].count(b"host") > 1:
            raise NotServed(400)
        if request.method == "CONNECT" or request.version not in _VERSIONS:
            raise NotServed(400)

    def _check_size(self, request: Request) -> None:
        """Refuse, before it comes, a body that says it is too large or for which is no room."""
        limits = self._server.limits
        length = request.header(b"content-length")
        if length is not None and int(length) > limits.body_bytes_max:
            self._do_without(request, _too_large(limits))
        elif self._server.body_bytes > limits.bodies_bytes_max:
            busy = "The broker has too many large requests in hand."
            self._do_without(request, BodyTooLarge(busy, code="overloaded", status=503))

    def _do_without(self, request: Request, trouble: BrokerError) -> None:
        """Have it answered without the body; what still comes of it is thrown away."""
        request.trouble = trouble
        request.keep_alive = False
        self._forget(request)
        self._connection.queue(request)

    def _complete(self, request: Request) -> None:
        self.request = None
        self._midway = False
        request.complete = True
        if not request.whole:
            if request.listener is not None:
                request.listener.finish()
        elif request.trouble is None:
            chunks = request.chunks
            if chunks:
                request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                self._forget(request)
            self._last = request
            self._connection.queue(request)

    def _forget(self, request: Request) -> None:
        self._server.body_bytes -= sum(map(len, request.chunks))
        request.chunks = []

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol, say h2c, in HTTP/1.1 all the same."""
        self._parser = httptools.HttpRequestParser(self)
        request = self.request
        if request is not None:
            if request.header(b"transfer-encoding") is not None:
                raise NotServed(400)
            self._raw_bytes = _declared(request)
        if rest:
            self.feed(rest)

    def _take_raw(self, data: bytes) -> bytes:
        piece, rest = data[: self._raw_bytes], data[self._raw_bytes :]
        self._raw_bytes -= len(piece)
        self.on_body(piece)
        if not self._raw_bytes and self.request is not None:
            self._complete(self.request)
        return rest


def _declared(request: Request) -> int:
    """Return the length of the body as its head says it, 1 for one in chunks, 0 for none."""
    if request.header(b"transfer-encoding") is not None:
        return 1
    return int(request.header(b"content-length") or 0)


def _too_large(limits: ServerLimits) -> BodyTooLarge:
    return BodyTooLarge(f"A request body may have at most {limits.body_bytes_max} bytes.")
