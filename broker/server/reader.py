"""Makes requests of the bytes that a caller sends: checks heads, keeps bodies or passes them on."""

from __future__ import annotations

from typing import Any, Final

import httptools

from broker.errors import BodyTooSlow, BrokerError
from broker.server.blocks import Filling, held_by
from broker.server.form import Form, LargeForm, form_of, large_form_of
from broker.server.head_checks import HEADERS_MAX, body_refusal, check_head, too_large
from broker.server.neighbours import NotServed, Server, Taker
from broker.server.request import Headers, Request, make_request
from broker.server.room import BEGUN, LARGE_BYTES, Held
from broker.upstream import known_head

SCRATCH_BYTES: Final = 2**18
"""So much is read at once."""
_HEAD_BYTES: Final = 2_048
"""Read beside them where the next request is likely to be as large."""


class Reader:
    """The parser of one connection; `request` is the one whose body is coming, if one is."""

    __slots__ = (
        "_connection",
        "_filling",
        "_form",
        "_forms_left",
        "_headers",
        "_heads",
        "_large",
        "_last",
        "_midway",
        "_parser",
        "_quiet_bytes",
        "_raw_bytes",
        "_server",
        "_target",
        "head_bytes",
        "request",
        "room",
    )

    def __init__(self, connection: Taker, server: Server) -> None:
        self._connection = connection
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        self._headers: Headers = []
        self._heads = 0
        """So many have begun; of two in the same bytes none is remembered."""
        self._target = b""
        self._raw_bytes = 0
        """What is left of a body that the parser does not get, nor a block as yet."""
        self.head_bytes = 0
        """Of the head that is coming, 0 while none is."""
        self._quiet_bytes = 0
        """Of a body, since the last that was of the body itself: sizes of chunks, and trailers."""
        self.request: Request | None = None
        self._last: Request | None = None
        """The one that has come whole with the latest bytes."""
        self._midway = False
        """True from the first byte of a message that the parser reads to its end."""
        self.room = server.scratch
        """Where the next bytes are to be written."""
        self._filling: Filling | None = None
        """The body that is read in place, without the parser."""
        self._large: LargeForm | None = None
        """The head of the last request, if its body was read in place."""
        self._form: Form | None = None
        self._forms_left = known_head.TRIED
        """So many heads in a row may be unlike the last one until no more are remembered."""

    def fill(self, size_bytes: int) -> None:
        """Take what was written to `room`. Raises NotServed as `feed` does."""
        filling, request = self._filling, self.request
        if filling is None or request is None:
            room, self.room = self.room, self._server.scratch
            data = bytes(room[:size_bytes])
            if self._large is None or self._midway or not self._take_large(self._large, data):
                self.feed(data)
            if self.request is not None:
                self._fill(self.request)
            return
        held_bytes = filling.held_bytes
        filling.advance(size_bytes)
        request.size_bytes += size_bytes
        self.room = filling.room
        if filling.held_bytes != held_bytes:
            self._count(request, filling.held_bytes - held_bytes)
            if request.trouble is not None:
                return
        if not filling.left_bytes:
            request.rest = filling.pieces()
            self._empty(request)
            self.room = self._server.scratch[: _HEAD_BYTES + LARGE_BYTES]
            self._complete(request)
            self._last = None

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises NotServed, after which nothing more can be told from what comes."""
        if self._raw_bytes and not (data := self._take_raw(data)):
            self._last = None
            return
        begins, self._last = not self._midway, None
        if begins and self._form is not None and self._take_known(self._form, data):
            return
        midway, heads = self.request is not None, self._heads
        if midway:
            self._quiet_bytes += len(data)
        else:
            self.head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            raise NotServed(cause.status if isinstance(cause, NotServed) else 400) from None
        if max(self.head_bytes, self._quiet_bytes) > self._server.limits.head_bytes_max:
            raise NotServed(431)
        alone = begins and self._heads == heads + 1
        if not midway and self.request is not None:
            self._read_on(self.request, data if alone else b"")
        last, self._last = self._last, None
        if begins and self._forms_left:
            self._forms_left -= 1
            self._form = form_of(data, last) if alone and last is not None else None

    def give_up(self) -> None:
        """The body did not come in time: have the request answered without it."""
        if self.request is not None:
            limit = f"The body of a request must come within {self._server.limits.body_s:g} s."
            self._do_without(self.request, BodyTooSlow(limit))

    def close(self) -> None:
        """Keep nothing of what has come, nor the connection, which holds this: what is left of it
        would wait for the garbage collector."""
        if self.request is not None:
            self._empty(self.request)
            self._forget(self.request)
        self.request = self._form = self._large = self._last = None
        self._parser = None  # it holds our methods, and we held it
        del self._connection

    # ------------------------------------------------------------------ told by the parser

    def on_message_begin(self) -> None:
        self._midway = True
        self._heads += 1
        self._headers = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) >= HEADERS_MAX:
            raise NotServed(431)
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, server = self._parser, self._server
        method, version = parser.get_method().decode(), parser.get_http_version()
        request = make_request(self._connection, method, self._target, self._headers, version)
        request.begun_at = server.loop.time()
        request.keep_alive = parser.should_keep_alive() and not server.stopping
        self._headers = []  # trailers end up here, unseen
        check_head(request, self.head_bytes, server.limits.head_bytes_max)
        self.head_bytes = self._quiet_bytes = 0
        self.request = request
        request.handler, request.whole = server.open(request)
        if not request.whole:
            self._connection.queue(request)
        elif (refusal := body_refusal(request, server)) is not None:
            self._do_without(request, refusal)
        expected = request.header(b"expect")
        if expected is not None and request.trouble is None and expected[:4].lower() == b"100-":
            if request.whole or request.listener is not None:
                self._connection.invite()
            else:  # refused; whether its body comes all the same cannot be known
                request.keep_alive = False

    def on_body(self, data: bytes) -> None:
        request = self.request
        if request is None:
            return
        self._quiet_bytes = 0
        request.size_bytes += len(data)
        if request.ended or request.trouble is not None:
            if request.size_bytes > self._server.limits.discarded_bytes_max:
                raise NotServed(413)
        elif not request.whole:
            if request.listener is not None:
                request.listener.feed(data)
        else:
            request.keep(data)
            if request.size_bytes > self._server.limits.body_bytes_max:
                self._server.room.count(request.owner, len(data))
                self._do_without(request, too_large(self._server.limits))
            else:
                self._count(request, len(data))

    def on_message_complete(self) -> None:
        request = self.request
        if request is None or (self._parser.should_upgrade() and request.declared_bytes):
            return  # the parser takes the body of such a request for another protocol's bytes
        self._complete(request)

    # ------------------------------------------------------------------ its own steps

    def _read_on(self, request: Request, data: bytes) -> None:
        """Have the rest of a large body read in place, if the one that is coming may be.

        It spares two copies of three; and the parser, which has nothing to find in it. `data`:
        all that it began with, empty where more than it began in the same bytes or it did before.
        """
        self._large = None
        if self._raw_bytes or not request.in_pieces or request.trouble is not None:
            return
        length_bytes = request.declared_bytes
        left_bytes = length_bytes - request.size_bytes
        if left_bytes > LARGE_BYTES and request.header(b"transfer-encoding") is None:
            self._large = large_form_of(data, request, length_bytes) if data else None
            self._parser = httptools.HttpRequestParser(self)
            self._raw_bytes = left_bytes

    def _take_large(self, form: LargeForm, data: bytes) -> bool:
        """Take the begin of a request that has the last one's head; False: it is another."""
        server = self._server
        if server.stopping or 2 * server.room.held_bytes > server.limits.bodies_bytes_max:
            return False
        request = form.match(data)
        if request is None:
            return False
        left_bytes = form.length_bytes - request.size_bytes
        if left_bytes <= 0:
            return False
        request.begun_at = server.loop.time()
        request.handler, request.whole = server.open(request)
        self.request, self._midway, self._last = request, True, None
        self._raw_bytes = left_bytes
        if request.whole:
            server.room.count(request.owner, request.size_bytes)
        else:  # refused at its head
            request.chunks = []
            self._connection.queue(request)
        return True

    def _fill(self, request: Request) -> None:
        """Have what is left of a large body read in place, if enough of it has come."""
        left_bytes, may_be = self._raw_bytes, request.in_pieces and request.whole
        if left_bytes <= LARGE_BYTES or not may_be or request.trouble is not None:
            return
        if request.size_bytes < LARGE_BYTES:
            self.room = self._server.scratch[: LARGE_BYTES - request.size_bytes]
            return
        self._raw_bytes, self._filling = 0, Filling(self._server.blocks, left_bytes)
        self.room = self._filling.room
        self._count(request, self._filling.held_bytes)

    def _empty(self, request: Request) -> None:
        """Read no more in place."""
        filling, self._filling = self._filling, None
        if filling is not None:
            self._server.room.count(request.owner, -filling.held_bytes)
            self.room = self._server.scratch

    def _take_known(self, form: Form, data: bytes) -> bool:
        """Take a request that came whole and has the last one's head; False: it is another."""
        server = self._server
        if server.stopping or 2 * server.room.held_bytes > server.limits.bodies_bytes_max:
            return False
        request = form.match(data, server.limits.body_bytes_max)
        if request is None:
            return False
        self._forms_left = known_head.TRIED
        request.begun_at = server.loop.time()
        request.complete = True
        request.handler, request.whole = server.open(request)
        if request.size_bytes > LARGE_BYTES:
            request.held = Held(server.room, request.owner, request.size_bytes)
        self._connection.queue(request)
        return True

    def _count(self, request: Request, more_bytes: int) -> None:
        """Count bytes of a body that is coming; a large one may not go on without any bound."""
        room = self._server.room
        room.count(request.owner, more_bytes)
        if request.size_bytes > LARGE_BYTES:
            refusal = room.refusal(request.owner, BEGUN * self._server.limits.bodies_bytes_max)
            if refusal is not None:
                self._do_without(request, refusal)

    def _do_without(self, request: Request, trouble: BrokerError) -> None:
        """Have it answered without the body; what still comes of it is thrown away."""
        request.trouble = trouble
        request.keep_alive = False
        if self._filling is not None:
            self._raw_bytes = self._filling.left_bytes
            self._empty(request)
        self._forget(request)
        self._connection.queue(request)

    def _complete(self, request: Request) -> None:
        self.request = None
        self._midway = False
        self._quiet_bytes = 0
        request.complete = True
        if not request.whole:
            if request.listener is not None:
                request.listener.finish()
        elif request.trouble is None:
            chunks = request.chunks
            if chunks:
                request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                self._forget(request)
            if request.size_bytes > LARGE_BYTES:
                size_bytes = len(request.body) + held_by(request.rest)
                request.held = Held(self._server.room, request.owner, size_bytes)
            self._last = request
            self._connection.queue(request)

    def _forget(self, request: Request) -> None:
        self._server.room.count(request.owner, -sum(map(len, request.chunks)))
        request.chunks = []

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve a request that offers another protocol, say h2c, in HTTP/1.1 all the same."""
        self._parser = httptools.HttpRequestParser(self)
        request = self.request
        if request is not None:
            if request.header(b"transfer-encoding") is not None:
                raise NotServed(400)
            self._raw_bytes = request.declared_bytes
        if rest:
            self.feed(rest)

    def _take_raw(self, data: bytes) -> bytes:
        piece, rest = data[: self._raw_bytes], data[self._raw_bytes :]
        self._raw_bytes -= len(piece)
        self.on_body(piece)
        if not self._raw_bytes and self.request is not None:
            self._complete(self.request)
        return rest
