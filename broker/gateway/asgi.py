"""The few ASGI motions of the data plane: read a body, answer, notice that a caller left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from broker.errors import BodyTooLarge, BodyTooSlow, RequestMalformed
from broker.settings import Limits

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

WATCH_AFTER_S = 0.05
"""A caller is watched for leaving only after this: most answers of fast models come before, and
the watching task costs more than all the rest of the reading."""


class CallerLeft(Exception):
    """The caller closed the connection before the request had come whole."""


def header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first header `name` (lower case)."""
    for key, value in headers:
        if key == name:
            return value
    return None


async def read_body(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """Return the whole body. Raises BodyTooLarge, BodyTooSlow, CallerLeft."""
    try:
        async with asyncio.timeout(limits.body_s):
            return await _read_body(scope, receive, limits.body_bytes_max)
    except TimeoutError:
        detail = f"The body of a request must come within {limits.body_s:g} seconds."
        raise BodyTooSlow(detail) from None


async def _read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    announced = header(scope["headers"], b"content-length")
    if announced is not None and (not announced.isdigit() or int(announced) > limit_bytes):
        raise _too_large(limit_bytes)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise CallerLeft
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return _bounded(body, limit_bytes)
    parts, size_bytes = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeft
        parts.append(message.get("body", b""))
        size_bytes += len(parts[-1])
        if size_bytes > limit_bytes:
            raise _too_large(limit_bytes)
    return b"".join(parts)


def _bounded(body: bytes, limit_bytes: int) -> bytes:
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    return body


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"A request body may have at most {limit_bytes} bytes.")


async def respond(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Send a whole answer with its length."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Watch:
    """Cancels the task that serves a request when its caller leaves, or takes no answer for ever.

    `patience_s`: who has not taken the whole answer by then counts as gone.
    """

    def __init__(self, receive: Receive, patience_s: float) -> None:
        self.left = False
        self._receive = receive
        self._patience_s = patience_s
        self._serving = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(WATCH_AFTER_S, self._begin)

    def stop(self) -> None:
        """The answer is complete: watch no longer."""
        self._handle.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _begin(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                message = await self._receive()
                if message["type"] != "http.disconnect":
                    return
        if self._serving is not None:
            self.left = True
            self._serving.cancel()


def require_utf8(body: bytes) -> None:
    """Raise RequestMalformed for a body that is not UTF-8: the decoder skips over slices."""
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError:
        raise RequestMalformed("The body is not valid UTF-8.") from None
