"""Bounds in time what is awaited, but for time in which this process itself was away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

LATE_S: Final = 0.1
GRACE_S_MAX: Final = 1.0


def grace_s(late_s: float) -> float:
    """Return for how long to go on after a limit whose timer fired `late_s` seconds late.

    Then it was this process that was away, say for want of a CPU, and the answer may well be there,
    unread. Nobody is blamed before it could be.
    """
    return min(late_s, GRACE_S_MAX) if late_s > LATE_S else 0.0


@contextlib.asynccontextmanager
async def patience(due: float) -> AsyncIterator[None]:
    """End what the block awaits at the loop time `due`, or once it could have been heard of.

    Raises TimeoutError.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        def end() -> None:
            now = loop.time()
            limit.reschedule(now + grace_s(now - due))

        timer = loop.call_at(due, end)
        try:
            yield
        finally:
            timer.cancel()
