"""How long a process that was told to stop may take for all that is left to do after its calls.

A server that hangs answers nobody: what is to be written, told or closed there is waited for within
one limit for all of it together, and then left.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

LEAVE_S: Final = 8.0
_AT_LEAST_S: Final = 0.1
"""What needs no answer is done within that, however late it is."""

_log = structlog.get_logger(__name__)


class Leave:
    """One taking down: `begin` it, then do each thing `within` what is left of the limit."""

    def __init__(self, limit_s: float = LEAVE_S) -> None:
        self._limit_s = limit_s
        self._due_s = math.inf

    def begin(self) -> None:
        """Count from now on."""
        self._due_s = time.monotonic() + self._limit_s

    @property
    def left_s(self) -> float:
        """How long what comes next may take."""
        if self._due_s == math.inf:
            self.begin()  # it fell over while it was built
        return max(self._due_s - time.monotonic(), _AT_LEAST_S)

    async def within(self, close: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> None:
        """Do `close`, or give it up in time and say so."""
        # In a task of its own, for this one may have been cancelled to end: then Python 3.11 takes
        # a time-out for that.
        closing = asyncio.create_task(close(*arguments))
        done, _ = await asyncio.wait([closing], timeout=self.left_s)
        if done:
            await closing
            return
        _log.warning("left undone", what=close.__qualname__)
        closing.cancel()
        await asyncio.wait([closing], timeout=_AT_LEAST_S)
