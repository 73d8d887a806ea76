"""Serves an ASGI app on the broker's own server: the control plane and what is mounted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, MutableMapping
from functools import cache, partial
from typing import Any, Final

import structlog

from broker.errors import TooManyCalls, Unavailable
from broker.server.request import Request, header_lines
from broker.server.room import BEGUN, LARGE_BYTES, Room

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_INBOX_BYTES: Final = 65_536
BODIES_BYTES_MAX: Final = 256 << 20
"""Of all large bodies that an app has in hand; it may keep each several times."""
_AGAIN_S: Final = 1.0

_log = structlog.get_logger()


def when_asked(build: Callable[[], App]) -> App:
    """Return an app that is built when it is first asked for something."""
    built = cache(build)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await built()(scope, receive, send)

    return app


class Inbox:
    """The body of a request as it comes, told to an app piece by piece."""

    def __init__(self, request: Request, room: Room, bodies_bytes_max: int) -> None:
        self._request = request
        self._room = room
        self._bodies_bytes_max = bodies_bytes_max
        self._told_bytes = self._counted_bytes = 0
        self._owner: Hashable = None
        self._pieces: deque[bytes] = deque()
        self._size_bytes = 0
        self._finished = False
        self._told_end = False
        self._left = False
        self._news = asyncio.Event()

    def feed(self, data: bytes) -> None:
        """Take a piece; who reads slowly holds the sender back."""
        self._pieces.append(data)
        self._size_bytes += len(data)
        if self._size_bytes > _INBOX_BYTES:
            self._request.connection.hold_back(back=True)
        self._news.set()

    def finish(self) -> None:
        """The body is complete."""
        self._finished = True
        self._news.set()

    def leave(self) -> None:
        """The caller has left."""
        self._left = True
        if not self._finished:
            self.forget()  # with what came in part an app begins nothing
        self._news.set()

    async def receive(self) -> Message:
        """ASGI's `receive`. Raises Unavailable where large bodies have no room left."""
        while not (self._pieces or self._left or (self._finished and not self._told_end)):
            if self._request.ended:
                break
            self._news.clear()
            await self._news.wait()
        if self._left or (self._told_end and not self._pieces) or self._request.ended:
            return {"type": "http.disconnect"}
        body = b"".join(self._pieces)
        self._pieces.clear()
        if self._size_bytes > _INBOX_BYTES:
            self._request.connection.hold_back(back=False)
        self._size_bytes = 0
        self._count(len(body))
        self._told_end = self._finished
        return {"type": "http.request", "body": body, "more_body": not self._finished}

    def _count(self, more_bytes: int) -> None:
        """Count what the app is told of a large body until it has answered: whoever it is, for
        some need no key."""
        self._told_bytes += more_bytes
        if self._told_bytes <= LARGE_BYTES:
            return
        if not self._counted_bytes:  # of who has left no address can be asked
            peer, _ = self._request.connection.addresses()
            self._owner = peer and peer[0]  # one alone has half of the room
        most_bytes = self._bodies_bytes_max * (BEGUN if self._counted_bytes else 1.0)
        while (refusal := self._room.refusal(self._owner, most_bytes)) is not None:
            owner = self._owner if isinstance(refusal, TooManyCalls) else None
            if not self._request.connection.make_room(partial(self._comes_beside, owner)):
                raise Unavailable(
                    "The broker has too many large bodies in hand.",
                    code="overloaded",
                    retry_after_s=_AGAIN_S,
                )
        self._room.count(self._owner, self._told_bytes - self._counted_bytes)
        self._counted_bytes = self._told_bytes

    def _comes_beside(self, owner: Hashable, request: Request) -> bool:
        """True of another large body for the same app, of the owner's if one is named."""
        other = request.listener
        return isinstance(other, Inbox) and other is not self and other.takes(self._room, owner)

    def takes(self, room: Room, owner: Hashable) -> bool:
        """Return whether it takes some of a room, as the owner's if one is named."""
        return self._room is room and self._counted_bytes > 0 and owner in (None, self._owner)

    def forget(self) -> None:
        """The app has answered, or will get no more."""
        self._room.count(self._owner, -self._counted_bytes)
        self._counted_bytes = 0


class Bridge:
    """Hands requests to an ASGI app, each as a scope of HTTP."""

    def __init__(self, app: App, bodies_bytes_max: int = BODIES_BYTES_MAX) -> None:
        self._app = app
        self._bodies_bytes_max = bodies_bytes_max
        self.room = Room()

    def open(self, request: Request) -> None:
        """Prepare a request at its head, for its body may come at once."""
        request.listener = Inbox(request, self.room, self._bodies_bytes_max)

    async def handle(self, request: Request) -> None:
        """Serve one request."""
        sent_length = False

        async def send(message: Message) -> None:
            nonlocal sent_length
            if request.left:
                return
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                sent_length = any(name.lower() == b"content-length" for name, _ in headers)
                request.begin(message["status"], header_lines(headers), sized=sent_length)
            elif message["type"] == "http.response.body":
                body = bytes(message.get("body", b""))
                if message.get("more_body", False):
                    request.write(body)
                    await request.drain()
                else:
                    request.end(body)

        try:
            await self._app(self._scope(request), request.listener.receive, send)
        except Exception as error:
            if request.left:
                return
            _log.error("app_failed_unexpectedly", path=request.path, exc_info=error)
            if not request.begun:
                request.keep_alive = False
                request.answer(500, b"content-type: text/plain\r\n", b"Internal server error")
        finally:
            request.listener.forget()

    def _scope(self, request: Request) -> Scope:
        client, server = request.connection.addresses()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.version,
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "raw_path": request.raw_path,
            "query_string": request.query,
            "root_path": "",
            "headers": request.headers,
            "client": client,
            "server": server,
            "state": {},
        }
