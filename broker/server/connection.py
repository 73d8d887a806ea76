"""One caller's connection: has its requests served in their order, and keeps the limits.

Hot path: no task but the request's own, no timer of its own (`Listener` looks at `due_at` of all
connections four times a second), one write for a whole answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, cast

import structlog

from broker.server import neighbours
from broker.server.blocks import blocks_of
from broker.server.files import unread_bytes
from broker.server.neighbours import NotServed
from broker.server.reader import Reader
from broker.server.request import NEVER, Request

_log = structlog.get_logger()

_LINGER_S: Final = 10.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REFUSED: Final = {
    400: (b"Bad Request", b"This is not a request that HTTP/1.1 knows."),
    408: (b"Request Timeout", b"The request did not come in time."),
    413: (b"Content Too Large", b"The body of the request is too large."),
    431: (b"Request Header Fields Too Large", b"The head of the request is too large."),
}

Address = tuple[str, int] | None


class Server(neighbours.Server, Protocol):
    """The server that connections belong to."""

    connections: set[Connection]


class Connection(asyncio.BufferedProtocol):
    """The state of one connection: what is served, what was sent ahead, what is due."""

    __slots__ = (
        "_ahead",
        "_discarded_bytes",
        "_held_back",
        "_loop",
        "_next",
        "_reader",
        "_runner",
        "_server",
        "_serving",
        "_transport",
        "_turn",
        "closed",
        "due_at",
        "idle_since",
        "writable",
    )

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = server.loop
        self._transport: asyncio.Transport
        self._reader = Reader(self, server)
        self._serving: Request | None = None
        self._ahead: list[Request] = []  # a few at most, and mostly none: a deque takes 600 bytes
        self._runner: asyncio.Task[None] | None = None
        """Serves what comes whole. One for all, for a task costs a call more than a future."""
        self._turn: asyncio.Future[None] | None = None
        """What the runner waits for while there is nothing to serve."""
        self._next: Request | None = None
        """What it serves next."""
        self._held_back = False
        self._discarded_bytes = 0
        self.writable: asyncio.Future[None] | None = None
        """Set while the caller is to take what waits before more is written."""
        self.due_at = 0.0
        """Loop time by which the caller must have made the next step."""
        self.idle_since = 0.0
        """Loop time of the last answer, or of the connection's begin or end."""
        self.closed = False

    # ------------------------------------------------------------------ told by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.idle_since = self._loop.time()
        self.due_at = self.idle_since + self._server.limits.head_s
        self._server.connections.add(self)

    def get_buffer(self, _: int) -> memoryview:
        return self._reader.room

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:
            self._discard(nbytes)
            return
        intake = self._reader
        begins = not intake.head_bytes
        try:
            intake.fill(nbytes)
        except NotServed as refusal:
            self._refuse(refusal.status)
            return
        if self._serving is None:  # nothing has come whole: a head or a body is on its way
            if intake.request is not None:
                self.due_at = self._body_due(intake.request)
            elif begins and intake.head_bytes:
                self.due_at = self._loop.time() + self._server.limits.head_s

    def connection_lost(self, _: Exception | None) -> None:
        self.closed = True
        self._server.connections.discard(self)
        self.resume_writing()
        self._ahead.clear()
        serving, self._serving = self._serving, None
        self._reader.close()
        if serving is not None and not serving.ended:
            serving.left = True
            if serving.listener is not None:
                serving.listener.leave()
            elif serving.task is not None and serving is not self._next:
                serving.task.cancel()  # but not the one before, which has yet to end
                serving.task = self._runner = None  # it may keep the error, and that all of us
        self._wake()

    def pause_writing(self) -> None:
        if self.writable is None:
            self.writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self.writable = self.writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # ------------------------------------------------------------------ told by the reader

    def queue(self, request: Request) -> None:
        """Serve a request in its turn. Raises NotServed where too many are before it."""
        if self._serving is None and not self._ahead:
            self._start(request)
        else:
            if len(self._ahead) >= self._server.limits.ahead_max:
                raise NotServed(400)
            self._ahead.append(request)
            # Whoever sends ahead is read on when what is here has been answered.
            self.hold_back(back=True)

    def invite(self) -> None:
        """Tell a caller that waits for it to send its body."""
        self._transport.write(_CONTINUE)

    # ------------------------------------------------------------------ told by the request

    def addresses(self) -> tuple[Address, Address]:
        """Return the caller's address and ours, as host and port."""
        peer, own = map(self._transport.get_extra_info, ("peername", "sockname"))
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
        taken_by = 0.0 if self.writable is None or request.due_at == NEVER else request.due_at
        if not request.keep_alive or self._server.stopping:
            self.close()
            self.due_at = max(self.due_at, taken_by)
            return
        limits = self._server.limits
        wait_s = limits.keep_alive_s if request.complete else limits.body_s
        self.idle_since = self._loop.time()
        self.due_at = max(self.idle_since + wait_s, taken_by)
        if self._ahead:
            self._start(self._ahead.pop(0))
        if self._held_back and not self._ahead:
            self.hold_back(back=False)

    def hold_back(self, *, back: bool) -> None:
        """Read nothing more for a while, or go on."""
        if back is not self._held_back and not self._transport.is_closing():
            self._held_back = back
            (self._transport.pause_reading if back else self._transport.resume_reading)()

    def close(self) -> None:
        """Close once what has been written is sent, for which the caller has a little while.

        Who is still sending is heard for that while: a connection that is closed upon unread bytes
        is reset, and the answer lost with it.
        """
        if not self.closed:
            self.closed = True
            self.idle_since = self._loop.time()
            self.due_at = self.idle_since + _LINGER_S
            if self._reader.request is not None or self._reader.head_bytes:
                self.hold_back(back=False)
                self._transport.write_eof()
            else:
                self._transport.close()

    # ------------------------------------------------------------------ told by the server

    @property
    def asks_nothing(self) -> bool:
        """True between requests, while no more than a head is on its way, and where nothing but
        what nobody wants any more still comes."""
        reading, gone = self._reader.request, self._transport.is_closing()
        wants_more = reading is not None and not reading.ended
        return self._serving is None and not (self._ahead or wants_more or gone)

    @property
    def has_begun(self) -> bool:
        """True while a head is on its way, or an answer that the caller has yet to take."""
        heading = self._reader.head_bytes > 0 and not self.closed
        return heading or self._transport.get_write_buffer_size() > 0

    @property
    def has_unread(self) -> bool:
        """True where the caller has said something that is yet to be read."""
        return not self.closed and unread_bytes(self._transport) > 0

    def close_if_idle(self) -> None:
        """The server is stopping: nothing more is asked here than what has come."""
        if self.asks_nothing and not self.has_unread:
            self.close()

    def abort(self) -> None:
        """Close at once, whatever waits to be sent."""
        self.closed = True
        self._transport.abort()

    def excuse(self, late_s: float) -> None:
        """Give the caller so much longer: for as long the server could not hear it."""
        self.due_at += late_s
        for request in {self._serving, self._reader.request, *self._ahead}:
            if request is not None:
                request.begun_at += late_s
                request.due_at += late_s

    def look(self, now: float) -> None:
        """Let go of a caller who keeps us waiting."""
        serving, reading = self._serving, self._reader.request
        if serving is not None and not self.closed:
            late = reading is serving and not serving.whole and now >= self._body_due(serving)
            # What is next waits for the one before, of whose answer something is not taken yet.
            due_at = self.due_at if serving is self._next else serving.due_at
            if late or now >= due_at:  # it does not send, or does not take the answer
                self.abort()
        elif now < self.due_at:
            return
        elif self.closed:
            self.abort()
        elif reading is not None and not reading.ended:
            self._reader.give_up()
        elif self._reader.head_bytes:
            self._refuse(408)
        else:
            self.close()

    # ------------------------------------------------------------------ its own steps

    def _body_due(self, request: Request) -> float:
        return request.begun_at + self._server.limits.body_s

    def _start(self, request: Request) -> None:
        self._serving = request
        runner = self._runner
        if not request.whole:
            request.task = self._loop.create_task(self._run(request))
        elif runner is None or runner.done():
            self._runner = request.task = self._loop.create_task(self._run(request))
        else:
            self._next, request.task = request, runner
            self._wake()

    def _wake(self) -> None:
        """Have the runner look whether there is something to serve, or nothing more."""
        turn, self._turn = self._turn, None
        if turn is not None and not turn.done():
            turn.set_result(None)

    async def _run(self, request: Request) -> None:
        """Serve a request, and one that comes whole after the other."""
        while True:
            try:
                await request.handler(request)
            except asyncio.CancelledError:
                # Kept in the task, the error would keep all that the call held, until the garbage
                # collector comes by: its frames lead to the connection, and that to the task.
                if not request.left:
                    raise
            except Exception as error:
                if not request.left:
                    _log.error("request_failed_unexpectedly", exc_info=error)
            finally:
                self._clear(request)
            if not request.whole:
                return
            del request  # and its body, which a caller who asks nothing more need not keep here
            while self._next is None:
                if self.closed:
                    return
                self._turn = self._loop.create_future()
                await self._turn
            request, self._next = self._next, None
            if request.left:
                return

    def _clear(self, request: Request) -> None:
        """Keep nothing of a request that was served; the memory of a large body serves the next."""
        if not request.ended:
            self.close()  # what broke off must not be taken for whole
        request.body, request.held = b"", None
        if request.rest:
            blocks, request.rest = blocks_of(request.rest), ()
            self._server.blocks.give_back(blocks)

    def _refuse(self, status: int) -> None:
        """Say that this is no request, and close. An answer under way comes first; what was sent
        ahead is not served, for it cannot be told from what follows."""
        self._ahead.clear()
        if self._serving is not None:
            self._serving.keep_alive = False
            self.hold_back(back=True)
            return
        reason, body = _REFUSED[status]
        self._transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n%b" % (status, reason, len(body), body)
        )
        self.close()

    def _discard(self, size_bytes: int) -> None:
        self._discarded_bytes += size_bytes
        if self._discarded_bytes > self._server.limits.discarded_bytes_max:
            self.abort()
