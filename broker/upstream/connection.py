"""One HTTP/1.1 connection: it writes requests, parses answers with llhttp, keeps the timeouts.

Hot path: one parser and one timer per connection, not per call. The timer is armed lazily: when it
fires before what is due now, it is armed again; so a call that ends in time neither makes nor
cancels a timer.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

import httptools

from broker.upstream import faults
from broker.upstream.due import TICK_S, due_at, heard_at, too_late
from broker.upstream.farewell import is_told_over
from broker.upstream.framing import HEADERS_MAX, check_head
from broker.upstream.hoard import Part
from broker.upstream.known_head import TRIED, Known, cut, with_length
from broker.upstream.patience import grace_s
from broker.upstream.pieces import PIECES_MAX, joined
from broker.upstream.receipt import unacknowledged
from broker.upstream.request import Body
from broker.upstream.response import CHUNK, WHOLE, Response

_JOINED_BYTES: Final = 65_536
"""Bodies up to this are copied behind their head; larger ones are handed over uncopied."""
_CLOSE: Final = b"\r\nconnection: close\r\n"


class _Surplus(Exception):
    """More bytes came than the answer has."""


class Keeper(Protocol):
    """The pool, as far as a connection needs it."""

    hoard: Part
    heard_at: float

    def release(self, connection: Connection) -> None:
        """Take back a connection that is ready for the next request."""

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""


class Connection(asyncio.Protocol):
    """The state of one connection; `response` is the answer it works on, None when idle."""

    __slots__ = (
        "_complete",
        "_due_at",
        "_final",
        "_head_limit",
        "_headers",
        "_headless",
        "_keep",
        "_keeper",
        "_known",
        "_large",
        "_loop",
        "_parser",
        "_progress",
        "_quiet_bytes",
        "_timer",
        "_transport",
        "_tries",
        "closed",
        "idle_since",
        "response",
    )

    def __init__(
        self, keeper: Keeper, head_limit_bytes: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.response: Response | None = None
        self.idle_since = 0.0
        self.closed = False
        self._keeper = keeper
        self._loop = loop
        self._head_limit = head_limit_bytes
        self._parser: Any = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._headers: list[tuple[bytes, bytes]] = []
        self._headless = False
        self._final = False
        self._large = False
        self._complete = False
        self._keep = False
        self._progress = False
        self._quiet_bytes = 0
        self._known: Known | None = None
        """The head of the last answer, if it was a plain 200, and its headers."""
        self._tries = TRIED

    def ask(self, head: bytes, body: Body, response: Response) -> None:
        """Write one request; `response` is told what becomes of it."""
        self.response = response
        response.carrier = self
        self._complete = False
        self._progress = False
        self._quiet_bytes = 0
        self._headless = head.startswith(b"HEAD ")
        self._final = head.find(_CLOSE) >= 0  # `in` takes four times as long on bytes
        if type(body) is bytes and len(body) <= _JOINED_BYTES:
            self._large = False
            self._transport.write(head + body)
        else:
            self._large = True
            self._transport.writelines((head, *((body,) if isinstance(body, bytes) else body)))
        due = min(response.asked_at + response.timeouts.first_byte_s, response.total_due)
        if self._timer is None or due < self._due_at:
            self._arm(due)

    # ------------------------------------------------------------------ told by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        response = self.response
        if response is None:  # bytes nobody asked for: what follows them could not be trusted
            self.abort()
            return
        begins = not self._quiet_bytes and not response.status
        if begins and self._known and self._take_known(response, data, self._known):
            return
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                response.fail(faults.of_parser_error(error, response.status, self._head_limit))
                return
            self._keep = False  # the answer stands, its connection does not
        if self._complete:
            if begins and self._tries:
                self._remember(response, data)
            self._finish(response)
        else:
            if len(response.chunks) > PIECES_MAX:
                response.chunks = joined(response.chunks, response.buffered)
            self._take(response, len(data))

    def eof_received(self) -> None:
        response = self.response
        if response is None:
            self.abort()
        elif response.status and response.ends_with_connection and is_told_over(self._transport):
            self._keep = False
            self._finish(response)
        else:
            if response.silent:  # a reset tells nothing of what arrived before it
                response.unacknowledged_bytes = unacknowledged(self._transport)
            response.fail(faults.of_lost_connection(None, response.status))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._disarm()
        response = self.response
        self.response = None
        if response is not None:
            response.carrier = None
            self._keeper.hoard.forget(response)
            response.fail(faults.of_lost_connection(exc, response.status))
        self._parser = None  # it holds our methods, and we held it
        self._keeper.lost(self)

    # ------------------------------------------------------------------ told by the parser

    def on_message_begin(self) -> None:
        if self._complete:
            raise _Surplus
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) >= HEADERS_MAX:
            raise OverflowError
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response = self.response
        assert response is not None
        status = self._parser.get_status_code()
        check_head(status, self._parser.get_http_version(), self._headers)
        if status < 200:
            return
        if self._quiet_bytes > self._head_limit:
            size = sum(len(name) + len(value) + 4 for name, value in self._headers)
            if size > self._head_limit:
                raise OverflowError
        response.status = status
        response.headers = self._headers
        self._headers = []  # trailers end up here, unseen
        self._progress = True
        if self._headless:
            self._complete = True
            raise _Surplus  # the parser would wait for the body that a HEAD request does not get

    def on_body(self, data: bytes) -> None:
        response = self.response
        assert response is not None
        response.chunks.append(data)
        response.buffered += len(data)
        self._progress = True

    def on_message_complete(self) -> None:
        response = self.response
        assert response is not None
        if response.status:  # else it was an informational answer, and the real one is to come
            self._complete = True
            self._keep = not self._final and self._parser.should_keep_alive()

    # ------------------------------------------------------------------ told by the response

    def abort(self) -> None:
        """Close at once; the pool hears of it when the transport is gone."""
        if self.response is not None:
            self._keeper.heard_at = max(self._keeper.heard_at, self.response.heard_at)
            self._keeper.hoard.forget(self.response)
            self.response = None
        if not self.closed:
            self.closed = True
            self._disarm()
            self._transport.abort()

    def resume(self) -> None:
        """Take bytes from the provider again; silence is counted from now."""
        response = self.response
        if response is not None and response.paused:
            response.paused = False
            response.heard_at = self._loop.time()
            self._transport.resume_reading()
            self.watch()

    def watch(self) -> None:
        """Arm the timer for what is due next in the present phase."""
        response = self.response
        if response is not None:
            due = due_at(response)
            if self._timer is None or due < self._due_at:
                self._arm(due)

    # ------------------------------------------------------------------ its own steps

    def _remember(self, response: Response, data: bytes) -> None:
        """Keep the head of an answer that has come whole, if it is a plain one."""
        self._tries -= 1
        self._known = None
        if response.status == 200 and self._keep and not self._headless:
            lengths = [value for name, value in response.headers if name == b"content-length"]
            head = cut(data, lengths[0] if len(lengths) == 1 else None)
            if head is not None:
                self._known = head, list(response.headers)

    def _take_known(self, response: Response, data: bytes, known: Known) -> bool:
        """Take an answer that came whole and has the last one's head; False: it is another."""
        head, headers = known
        found = None if self._headless else head.match(data)
        if found is None:
            return False
        digits, body = found
        self._tries = TRIED
        self._complete = True
        self._keep = not self._final
        response.status = 200
        response.headers = headers if digits == head.digits else with_length(headers, digits)
        if body:
            response.chunks.append(body)
            response.buffered = len(body)
        self._finish(response)
        return True

    def _take(self, response: Response, arrived_bytes: int) -> None:
        """Hand on what came of an answer that is not over."""
        begins = response.sized is None
        response.heard_at = heard_at(response, arrived_bytes, self._loop.time())
        if self._progress:
            self._progress = False
            self._quiet_bytes = 0
        elif self._quiet_bytes > self._head_limit:
            response.fail(faults.of_long_head(response.status, self._head_limit))
            return
        if not response.status:
            return
        if response.wants == WHOLE and (
            (begins and response.announces_too_much()) or not self._keeper.hoard.takes(response)
        ):
            return
        if self._timer is not None and response.heard_at + response.timeouts.idle_s < self._due_at:
            self.watch()
        if response.buffered > response.room and not response.paused and response.overflow():
            response.paused = True
            self._transport.pause_reading()
        wants = response.wants
        if wants != WHOLE and response.waiter is not None and (wants != CHUNK or response.chunks):
            response.wake()

    def _finish(self, response: Response) -> None:
        """End a whole answer: the connection goes back first, then the waiter hears."""
        self.response = None
        response.carrier = None
        if response.counted_bytes:
            self._keeper.hoard.keep(response)
        if response.wants == WHOLE and response.buffered > response.room:
            response.overflow()
        response.done = response.failure is None
        if response.paused:
            response.paused = False
            self._transport.resume_reading()
        self._keeper.heard_at = self._loop.time()
        if self._keep and not (self._large and self._transport.get_write_buffer_size()):
            self._keeper.release(self)
        else:
            self.abort()
        waiter = response.waiter
        if waiter is not None:
            response.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due_at = due
        self._timer = self._loop.call_at(due, self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        response = self.response
        if response is None:
            return
        now = self._loop.time()
        due = max(due_at(response), now + grace_s(now - self._due_at))
        if now + TICK_S < due:
            self._arm(due)
        else:
            response.fail(too_late(response, now))
