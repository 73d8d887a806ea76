"""Tells any number of listeners of each new market; a slow listener skips to the newest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from broker.core.market import Market

LOOK_EVERY_S = 0.1


class PriceFeed:
    """Looks at the market of this process while anybody listens.

    What is told is thus what this process routes by, whichever way the market came in. Nothing is
    queued: each listener has room for one market, the newest.
    """

    def __init__(self, market: Callable[[], Market], stopping: Callable[[], bool]) -> None:
        self._market = market
        self._stopping = stopping
        self._changed = asyncio.Event()
        self._listeners = 0
        self._watch: asyncio.Task[None] | None = None

    @property
    def watching(self) -> bool:
        """True while anybody listens."""
        return self._watch is not None

    async def follow(self, heartbeat_s: float) -> AsyncGenerator[Market | None, None]:
        """Yield the market now and each new one, None after `heartbeat_s` without."""
        self._arrive()
        try:
            told: Market | None = None
            while not self._stopping():
                changed, newest = self._changed, self._market()
                if newest is not told:
                    told = newest
                    yield newest
                elif not await _within(changed, heartbeat_s):
                    yield None
        finally:
            self._leave()

    def _arrive(self) -> None:
        self._listeners += 1
        if self._watch is None:
            self._watch = asyncio.create_task(self._look(self._market()))

    def _leave(self) -> None:
        self._listeners -= 1
        if self._listeners == 0 and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    async def _look(self, seen: Market) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            newest = self._market()
            if newest is not seen or self._stopping():
                seen = newest
                self._changed.set()
                self._changed = asyncio.Event()


async def _within(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
