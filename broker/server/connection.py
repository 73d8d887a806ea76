"""One caller's connection: has its requests served in their order, and keeps the limits.

Hot path: no task but the request's own, no timer of its own (`Listener` looks at `due_at` of all
connections four times a second), one write for a whole answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, cast

from broker.server import neighbours
from broker.server.files import unread_bytes
from broker.server.neighbours import NotServed
from broker.server.reader import Reader
from broker.server.refusals import refusal
from broker.server.request import NEVER, Address, Request
from broker.server.runner import Runner
from broker.server.uploads import Which

_LINGER_S: Final = 10.0
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


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
        "_reader",
        "_runner",
        "_server",
        "_serving",
        "_transport",
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
        self._runner = Runner(self, server)
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
        except NotServed as error:
            self._refuse(error.status)
            return
        if self._serving is None:  # nothing has come whole: a head or a body is on its way
            if intake.request is not None:
                self.due_at = self._body_due(intake.request)
            elif begins and intake.head_bytes:
                self.due_at = self._loop.time() + self._server.limits.head_s

    def connection_lost(self, _: Exception | None) -> None:
        if self not in self._server.connections:
            return  # it was cut short, and now has ended
        self.closed = True
        self._server.connections.remove(self)
        self.resume_writing()
        self._ahead.clear()
        serving, self._serving = self._serving, None
        self._reader.close()
        self._runner.leave(serving)
        del self._runner  # it holds this, which would wait for the garbage collector

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

    def make_room(self, which: Which) -> bool:
        """Let go of who has stalled for longest with such a request; False where nobody has."""
        return self._server.uploads.let_go(which)

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

    @property
    def awaited(self) -> Request | None:
        """The request that has come in part, while nothing but its caller delays it."""
        serving, reading = self._serving, self._reader.request
        if reading is None or reading.begun or self._held_back:
            return None
        return reading if serving is None or serving is reading else None

    def close_if_idle(self) -> None:
        """The server is stopping: nothing more is asked here than what has come."""
        if self.asks_nothing and not self.has_unread:
            self.close()

    def abort(self) -> None:
        """Close at once, whatever waits to be sent."""
        self.closed = True
        self._transport.abort()

    def cut_short(self) -> None:
        """Tell a caller whose request does not come that others need its place, and be done with it
        at once."""
        if self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            self._transport.write(refusal(408))
            self._transport.close()
        self.connection_lost(None)

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
        if reading is not None and self.awaited is reading:
            self._server.uploads.watch(self, reading)
        if serving is not None and not self.closed:
            late = reading is serving and not serving.whole and now >= self._body_due(serving)
            # What is next waits for the one before, of whose answer something is not taken yet.
            due_at = self.due_at if serving is self._runner.next else serving.due_at
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
        self._runner.start(request)

    def _refuse(self, status: int) -> None:
        """Say that this is no request, and close. An answer under way comes first; what was sent
        ahead is not served, for it cannot be told from what follows."""
        self._ahead.clear()
        if self._serving is not None:
            self._serving.keep_alive = False
            self.hold_back(back=True)
            return
        self._transport.write(refusal(status))
        self.close()

    def _discard(self, size_bytes: int) -> None:
        self._discarded_bytes += size_bytes
        if self._discarded_bytes > self._server.limits.discarded_bytes_max:
            self.abort()
