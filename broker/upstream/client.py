"""The HTTP/1.1 client for providers: `send` writes a request and returns an answer at its head.

    client = UpstreamClient(policy, Limits())
    head = request_head(b"POST", b"/v1/chat/completions", origin.authority, headers, len(body))
    response = await client.send(origin, head, body, timeouts)
    while (data := await response.next_chunk()) is not None: ...

**Stale connections.** A provider may close a kept connection in the very moment in which it is used
again. If a connection that was used before is closed in order (by FIN, not by a reset) without one
byte of an answer, and no byte of the request was acknowledged, the request is sent once more, on a
connection that was never used; in every other case the attempt has failed with RESET, for the
provider may be at work on it. Ask for `Connection: close` in requests for streams: some servers
close after a stream whatever they announce.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from broker.core.outcome import Fault
from broker.upstream.addresses import AddressPolicy
from broker.upstream.dial import Dialler
from broker.upstream.faults import AttemptFailed
from broker.upstream.hoard import Hoard, Kept, Part, no_room
from broker.upstream.names import Names
from broker.upstream.pool import OriginPool
from broker.upstream.request import (
    Body,
    Limits,
    Origin,
    Timeouts,
    head_prefix,
    request_head,
    sized,
)
from broker.upstream.response import HEAD, SHORT_BYTES, WHOLE, Response
from broker.upstream.silence import Silence

__all__ = [
    "AttemptFailed",
    "Body",
    "Limits",
    "Origin",
    "Response",
    "Room",
    "Timeouts",
    "UpstreamClient",
    "head_prefix",
    "request_head",
    "sized",
]


class Room(int):
    """Bytes of a body that are waited for; a larger one is handed out from its head on."""


class UpstreamClient:
    """Pools of connections to providers; one per process and event loop."""

    def __init__(
        self,
        policy: AddressPolicy,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        names: Names | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._dialler = Dialler(policy, ssl_context, names)
        self._hoard = Hoard(self._limits.wholes_bytes)
        self._pools: dict[Origin, OriginPool] = {}
        self._closed = False

    async def send(
        self,
        origin: Origin,
        head: bytes,
        body: Body,
        timeouts: Timeouts,
        whole_bytes: int | None = None,
    ) -> Response:
        """Send one request and return when the head of the answer is there; raise `AttemptFailed`.

        With `whole_bytes` it returns when the whole body is there, of at most so many bytes, which
        spares a wake-up; `read` then does not wait. A larger body fails, unless they are a `Room`.
        """
        pool = self._pools.get(origin) or self._add_pool(origin)
        loop = pool.loop
        now = loop.time()
        total_due = now + timeouts.total_s
        limits = self._limits
        room, wants = limits.high_water_bytes, HEAD
        if whole_bytes is not None:
            room, wants = whole_bytes, WHOLE
        connection = pool.take(now)
        used = True
        if connection is None:
            connection, used = await pool.obtain(timeouts, total_due)
            now = loop.time()
        while True:
            waiter = loop.create_future()
            response = Response(timeouts, limits, now, total_due, waiter, room, wants)
            if type(body) is bytes and 0 < len(body) <= SHORT_BYTES:
                response.long = False
            if type(whole_bytes) is Room:
                response.opens = True
            connection.ask(head, body, response)
            try:
                await waiter
            except BaseException:  # the caller has left
                response.abort()
                raise
            failure = response.failure
            if failure is None:
                return response
            stale = used and failure.fault is Fault.RESET and response.silent
            if not (stale and response.unacknowledged_bytes >= _size(head, body)):
                raise AttemptFailed(failure)
            pool = self._pools.get(origin) or self._add_pool(origin)
            connection = await pool.dial_again(timeouts, total_due)
            used = False
            now = loop.time()

    def connections(self, origin: Origin) -> tuple[int, int]:
        """Return how many connections to `origin` are busy and how many idle."""
        pool = self._pools.get(origin)
        return (0, 0) if pool is None else (pool.busy, pool.idle)

    @property
    def kept_bytes(self) -> int:
        """Of large answers that are kept whole, now."""
        return self._hoard.held_bytes

    def keep(self, size_bytes: int) -> Kept:
        """Count so many bytes of an answer that has grown, say by being unpacked, for as long as
        what is returned is held. Raises `AttemptFailed` where there is no room for them."""
        part = Part(self._hoard)
        kept = Kept(part, size_bytes)
        if not part.count(size_bytes):
            raise AttemptFailed(no_room(200))
        return kept

    def silences(self, calls_min: int) -> Iterator[tuple[Origin, Silence]]:
        """Yield how long the calls at each origin have waited that has as many under way."""
        for origin, pool in self._pools.items():
            if pool.busy >= calls_min:
                yield origin, pool.silence()

    async def aclose(self) -> None:
        """Abort what is under way and close every connection."""
        self._closed = True
        for pool in tuple(self._pools.values()):
            await pool.aclose()
        await self._dialler.aclose()

    def _add_pool(self, origin: Origin) -> OriginPool:
        assert not self._closed, "the client is closed"
        forget = self._pools.pop
        pool = OriginPool(origin, self._limits, self._dialler, self._hoard, forget)
        self._pools[origin] = pool
        return pool


def _size(head: bytes, body: Body) -> int:
    return len(head) + (len(body) if isinstance(body, bytes) else sum(map(len, body)))
