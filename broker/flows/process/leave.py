"""How long a process that was told to stop may take for all that is left to do after its calls.

A server that hangs answers nobody: what is to be finished, written and closed is waited for within
a limit for each of the three, and then left. So whatever does not finish leaves the ledger its
time; what others do not need of theirs, the ledger may take.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

FINISH_S: Final = 2.0
"""For tasks under way."""
LEDGER_S: Final = 4.0
"""For settlements, however late the tasks are."""
CLOSE_S: Final = 2.0
"""For connections."""
LEAVE_S: Final = FINISH_S + LEDGER_S + CLOSE_S
"""For all of it."""
_AT_LEAST_S: Final = 0.1
"""What needs no answer is done within that, however late it is."""

_log = structlog.get_logger(__name__)
_Close = Callable[..., Coroutine[Any, Any, None]]


class Leave:
    """One taking down: `finish` what is under way, `settle`, then do all else `within` the rest."""

    def __init__(
        self,
        limits_s: tuple[float, float, float] = (FINISH_S, LEDGER_S, CLOSE_S),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now_s` is monotonic."""
        self._finish_s, self._ledger_s, self._close_s = limits_s
        self._now_s = now_s
        self._begun_s: float | None = None
        self._close_due_s: float | None = None

    async def finish(self, close: _Close, *arguments: Any) -> None:
        """Do what comes before the ledger's drain, or give it up in time and say so."""
        await self._within(self._since_begun_s() + self._finish_s, close, *arguments)

    async def settle(self, drain: Callable[[float], Coroutine[Any, Any, None]]) -> None:
        """Drain the ledger, which is told for how many seconds it may."""
        due_s = self._since_begun_s() + self._finish_s + self._ledger_s
        await drain(max(due_s - self._now_s(), self._ledger_s))

    async def within(self, close: _Close, *arguments: Any) -> None:
        """Do what comes after it, or give it up in time and say so."""
        if self._close_due_s is None:
            self._close_due_s = self._now_s() + self._close_s
        await self._within(self._close_due_s, close, *arguments)

    def _since_begun_s(self) -> float:
        """Return when the first of all this was to be done."""
        if self._begun_s is None:
            self._begun_s = self._now_s()
        return self._begun_s

    async def _within(self, due_s: float, close: _Close, *arguments: Any) -> None:
        # In a task of its own, for this one may have been cancelled to end: then Python 3.11 takes
        # a time-out for that.
        closing = asyncio.create_task(close(*arguments))
        left_s = max(due_s - self._now_s(), _AT_LEAST_S)
        done, _ = await asyncio.wait([closing], timeout=left_s)
        if done:
            await closing
            return
        _log.warning("left undone", what=close.__qualname__)
        closing.cancel()
        await asyncio.wait([closing], timeout=_AT_LEAST_S)
