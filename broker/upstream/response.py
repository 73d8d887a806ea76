"""One answer as the caller sees it: status and headers, then the body as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from broker.core.outcome import Fault, Outcome
from broker.upstream.faults import AttemptFailed
from broker.upstream.request import Limits, Timeouts

HEAD, CHUNK, WHOLE = 0, 1, 2
"""What the waiter of a response waits for."""

SHORT_BYTES: Final = 8_192
"""A request up to this is sent and read in no time worth counting: it is about 2,000 tokens."""

_NEVER: Final = 0.0


class Carrier(Protocol):
    """The connection, as far as an answer needs it."""

    def abort(self) -> None:
        """Close at once, whatever is outstanding."""

    def resume(self) -> None:
        """Take bytes from the provider again."""

    def watch(self) -> None:
        """Look at the timeouts anew."""


class Response(msgspec.Struct, eq=False):
    """An answer that begins with its head; `read` or `next_chunk` to its end, or `abort` it.

    At the clean end of the body the connection has gone back to the pool by itself. An answer that
    is neither read to its end nor aborted holds its connection until `total_s` has passed.

    Callers use `status`, `headers` and the methods; the other fields belong to the connection,
    which fills them. It is a struct because one is made in a third of the time of a class.
    """

    timeouts: Timeouts
    limits: Limits
    asked_at: float
    """Loop time; all `_at` and `_due` are."""
    total_due: float
    waiter: asyncio.Future[None] | None
    room: int
    """Body bytes that may wait to be taken; over it the provider waits, or the answer fails."""
    wants: int = HEAD
    status: int = 0
    headers: Sequence[tuple[bytes, bytes]] = ()
    chunks: list[bytes] = []
    buffered: int = 0
    done: bool = False
    paused: bool = False
    failure: Outcome | None = None
    carrier: Carrier | None = None
    heard_at: float = _NEVER
    opens: bool = False
    """A body that there is no room for is handed out from its head on, in place of failing."""
    counted_bytes: int = 0
    """Of its body, in the hoard."""
    kept: object | None = None
    """Of one that is large and has come whole: who holds this has it counted."""
    unacknowledged_bytes: int = 0
    """Of the request, when its connection ended without a byte of an answer."""
    long: bool = True
    """Asked with so much, or so unclear an amount, that its first byte may well take its time."""
    sized: bool | None = None
    """Whether the head tells the length of the body; None until it is asked."""

    def __repr__(self) -> str:
        return f"<Response {self.status} buffered={self.buffered} done={self.done}>"

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the first header `name` (lower case), None when there is none."""
        for key, value in self.headers:
            if key == name:
                return value.rstrip()
        return None

    @property
    def ends_with_connection(self) -> bool:
        """True when the body has no length of its own, so that the connection's end is its end."""
        return self.header(b"content-length") is None and (
            self.header(b"transfer-encoding") is None
        )

    @property
    def silent(self) -> bool:
        """True when not one byte of an answer came."""
        return self.heard_at == _NEVER

    def take(self, limit_bytes: int) -> bytes:
        """Return the body, all of which is there; raise `AttemptFailed` where it failed."""
        if self.failure is not None:
            raise AttemptFailed(self.failure)
        assert self.done, "the whole answer was waited for"
        if self.buffered > limit_bytes:
            raise AttemptFailed(self._too_large(limit_bytes))
        chunks = self.chunks
        self.chunks = []
        self.buffered = 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self, limit_bytes: int | None = None) -> bytes:
        """Return the body, or what is left of it; raise `AttemptFailed` (TOO_LARGE, say)."""
        limit = self.limits.body_bytes if limit_bytes is None else limit_bytes
        if not self.done:
            await self._arrive(limit)
        return self.take(limit)

    async def next_chunk(self) -> bytes | None:
        """Return the body bytes that have come since, None at the clean end; raise `AttemptFailed`.

        What came before a failure is handed out before the failure is raised. A cancelled wait
        loses nothing.
        """
        if not self.chunks:
            if self.done:
                return None
            if self.failure is None:  # as `_wait`, without a coroutine of its own for every chunk
                assert self.waiter is None, "one reader at a time"
                self.wants = CHUNK
                self.waiter = asyncio.get_running_loop().create_future()
                try:
                    await self.waiter
                finally:
                    self.waiter = None
        chunks = self.chunks
        if chunks:
            self.chunks = []
            self.buffered = 0
            if self.paused and self.carrier is not None:
                self.carrier.resume()
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self.failure is not None:
            raise AttemptFailed(self.failure)
        return None

    def abort(self) -> None:
        """Close the connection at once, which cancels the work upstream; no-op at the end."""
        if not self.done and self.failure is None:
            self.fail(Outcome(Fault.CALLER_LEFT, status=self.status or None, detail="aborted"))

    def fail(self, outcome: Outcome) -> None:
        """End the answer with `outcome`, and its connection with it."""
        if self.failure is not None or self.done:
            return
        self.failure = outcome
        carrier = self.carrier
        self.carrier = None
        if carrier is not None:
            carrier.abort()
        self.wake()

    def wake(self) -> None:
        """Let the waiter look; it finds what it wants, or the end."""
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def overflow(self) -> bool:
        """Handle more buffered bytes than there is room for; True when the provider must wait."""
        if self.wants != WHOLE:
            return True
        if self.opens:
            self.open()
            return True
        self.fail(self._too_large(self.room))
        return False

    def open(self) -> None:
        """Go on as if the head alone had been waited for."""
        self.wants, self.room = HEAD, self.limits.high_water_bytes
        self.wake()

    def announces_too_much(self) -> bool:
        """Fail, before it comes, when the body has or is said to have more bytes than there is
        room for; True then. One that `opens` is handed out."""
        declared = self.header(b"content-length")
        if (declared is not None and int(declared) > self.room) or self.buffered > self.room:
            if self.opens and self.wants == WHOLE:
                self.open()
            else:
                self.fail(self._too_large(self.room))
        return self.failure is not None

    async def _arrive(self, limit_bytes: int) -> None:
        """Wait for the end of the body, refusing one that is said or seen to be over the limit."""
        self.room = limit_bytes
        if self.announces_too_much():
            return
        if self.paused and self.carrier is not None:
            self.carrier.resume()
        await self._wait(WHOLE)

    async def _wait(self, wants: int) -> None:
        assert self.waiter is None, "one reader at a time"
        self.wants = wants
        self.waiter = asyncio.get_running_loop().create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None

    def _too_large(self, limit_bytes: int) -> Outcome:
        detail = f"the body is over {limit_bytes} bytes"
        return Outcome(Fault.TOO_LARGE, status=self.status or None, detail=detail)
