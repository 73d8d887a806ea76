"""The places in which a scripted provider works, and the queue before them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class QueueFull(Exception):
    """No place is free and the queue has no room."""


class Slots:
    """Counts who works and who waits; first come, first served. The limits may change."""

    def __init__(self) -> None:
        self.capacity: int | None = None
        self.queue_limit: int | None = None
        self.running = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Who waits for a place now."""
        return len(self._queue)

    def _free(self) -> bool:
        return self.capacity is None or self.running < self.capacity

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for the length of the block; `QueueFull` when one cannot even wait."""
        if self._free() and not self._queue:
            self.running += 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self.running -= 1
            self.admit()

    async def _wait(self) -> None:
        if self.queue_limit is not None and len(self._queue) >= self.queue_limit:
            raise QueueFull
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.running -= 1
                self.admit()
            elif turn in self._queue:
                self._queue.remove(turn)
            raise

    def admit(self) -> None:
        """Let in whoever fits; called when a place is freed or the limits have changed."""
        while self._queue and self._free():
            turn = self._queue.popleft()
            if not turn.done():  # else whoever waited has left, and was not yet told
                self.running += 1
                turn.set_result(None)
