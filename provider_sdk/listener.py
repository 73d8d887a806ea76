"""A small HTTP/1.1 server: h11 parses what comes, one coroutine answers each request.

The front, the scripted provider and the fake broker stand on it. Its one peculiarity is that
listening starts and stops without awaiting, so that a test can say "refuse connections" and have
it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, cast

import h11

from provider_sdk.exchange import Exchange

log = logging.getLogger(__name__)

HEAD_LIMIT_BYTES = 32 * 1024
UNREAD_LIMIT_BYTES = 64 * 1024
IDLE_S = 75.0
SWALLOW_S = 5.0
CONNECTIONS_LIMIT = 4096


Handler = Callable[[Exchange], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One connection: requests in turn, each answered before the next is read."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT_BYTES)
        self._unread_bytes = 0
        self._wake = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = False
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._listener.joined(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._unread_bytes += len(data)
        if self._unread_bytes > UNREAD_LIMIT_BYTES:
            self._transport.pause_reading()
        try:
            self._h11.receive_data(data)
        except RuntimeError:  # data after the end that h11 has already seen
            self.close()
        self._wake.set()

    def eof_received(self) -> None:
        self._leave()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        self._writable.set()
        self._listener.left(self)
        self._leave()

    def _leave(self) -> None:
        """The caller is gone; told once, so that what cleans up after it is not cut short."""
        if not self._gone:
            self._gone = True
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        """Close after what was written."""
        self._transport.close()

    def reset(self) -> None:
        """Close at once, with a RST where the system lets us."""
        raw = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._h11.next_event()
            if event is not h11.NEED_DATA:
                return cast("h11.Event | type[h11.PAUSED]", event)
            self._unread_bytes = 0
            self._transport.resume_reading()
            self._wake.clear()
            await self._wake.wait()

    async def next_data(self) -> bytes | None:
        """The next piece of the request's body; `None` at its end."""
        if self._h11.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self._transport.write(self._h11.send(go_on) or b"")
        if self._h11.their_state is not h11.SEND_BODY:
            return None
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        # Who is not read from any more is not seen to leave either.
        self._unread_bytes = 0
        self._transport.resume_reading()
        return None

    def write(self, event: h11.Event) -> None:
        """Hand an event to the socket without waiting for room."""
        data = self._h11.send(event)
        if data:
            self._transport.write(data)

    def write_bytes(self, data: bytes) -> None:
        """Hand bytes to the socket as they are, past the protocol."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the socket takes more; `ConnectionResetError` when it is gone."""
        await self._writable.wait()
        if self._transport.is_closing():
            raise ConnectionResetError("the caller has left")

    async def _serve(self) -> None:
        try:
            while await self._serve_one():
                pass
        except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            self._refuse(error)
        except (ConnectionError, TimeoutError):
            pass
        finally:
            self.busy = False
            self._transport.close()

    async def _serve_one(self) -> bool:
        async with asyncio.timeout(IDLE_S):
            request = await self._event()
        if not isinstance(request, h11.Request):
            return False
        self.busy = True
        exchange = Exchange(self, request)
        try:
            await self._listener.handle(exchange)
        except (ConnectionError, h11.ProtocolError):
            raise
        except Exception:
            log.exception("a request could not be answered: %s %s", exchange.method, exchange.path)
            if not exchange.started:
                await exchange.answer(500, b'{"error":"internal error"}')
        self.busy = False
        return await self._ready_for_another()

    async def _ready_for_another(self) -> bool:
        if self._h11.our_state is not h11.DONE or self._transport.is_closing():
            return False
        if self._h11.their_state is h11.SEND_BODY:
            # a small unread body is swallowed, so that it does not cost the connection
            swallowed_bytes = 0
            async with asyncio.timeout(SWALLOW_S):
                while (data := await self.next_data()) is not None:
                    swallowed_bytes += len(data)
                    if swallowed_bytes > UNREAD_LIMIT_BYTES:
                        return False
        if self._h11.their_state is not h11.DONE or not self._listener.accepting:
            return False
        self._h11.start_next_cycle()
        return True

    def _refuse(self, error: h11.ProtocolError) -> None:
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = b'{"error":"malformed request"}'
        length = str(len(body)).encode("ascii")
        with contextlib.suppress(h11.ProtocolError):
            self.write(
                h11.Response(
                    status_code=error.error_status_hint,
                    headers=[(b"content-length", length), (b"connection", b"close")],
                )
            )
            self.write(h11.Data(data=body))
            self.write(h11.EndOfMessage())


class Listener:
    """A listening socket and the connections that came over it."""

    def __init__(self, handle: Handler, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.handle = handle
        self.host = host
        self.connections: set[Connection] = set()
        self.accepting = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._accepts: set[asyncio.Task[object]] = set()
        self._socket = self._bind(port)
        self.port: int = self._socket.getsockname()[1]

    def _bind(self, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.host, port))
        except OSError:
            bound.close()
            raise
        bound.setblocking(False)
        return bound

    def open(self) -> None:
        """Accept connections; must be called where an event loop runs."""
        if not self.accepting:
            self._socket.listen(512)
            asyncio.get_running_loop().add_reader(self._socket, self._accept)
            self.accepting = True

    def refuse(self) -> None:
        """Refuse new connections and drop the idle ones; the port stays ours, bound but deaf."""
        if self.accepting:
            self.accepting = False
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = self._bind(self.port)
            for connection in [c for c in self.connections if not c.busy]:
                connection.close()

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(64):
            try:
                accepted, _address = self._socket.accept()
            except OSError:
                return
            if len(self.connections) >= CONNECTIONS_LIMIT:
                accepted.close()
                continue
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task: asyncio.Task[object] = loop.create_task(
                loop.connect_accepted_socket(lambda: Connection(self), accepted)
            )
            self._accepts.add(task)
            task.add_done_callback(self._accepts.discard)

    def joined(self, connection: Connection) -> None:
        """A connection stands."""
        self.connections.add(connection)
        self._empty.clear()

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def reset_all(self) -> None:
        """Break every connection, as a killed process would."""
        for connection in list(self.connections):
            connection.reset()

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop; requests under way have `grace_s` seconds to end."""
        self.refuse()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._empty.wait()
        self._socket.close()
        await asyncio.gather(*self._accepts, return_exceptions=True)
        self.reset_all()
        await self._empty.wait()

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
