"""Watches for servers that have gone silent, so that others get their calls before they time out.

It looks at the calls under way now and then, which costs no call anything. Silent is a server as a
whole: while any of its models answers, the others' calls run into their timeouts. So they do where
it cannot be told how long a call may take: a healthy server must not lose its calls for being slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from broker.core.health.stalls import SEVERAL, is_stalled
from broker.flows.runtime import Runtime
from broker.upstream.client import Origin

EVERY_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Watch:
    """The watch of one process over the servers that it calls."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def run(self) -> None:
        """Look for ever; ends by cancellation."""
        now_s = self._runtime.now_s
        while True:
            due_s = now_s() + EVERY_S
            await asyncio.sleep(EVERY_S)
            if now_s() >= due_s + EVERY_S:
                continue  # it was this process that was away, and answers may be there, unread
            try:
                self.look()
            except Exception:  # one bad look must not leave the process blind for good
                _log.exception("nobody looked for silent servers")

    def look(self) -> None:
        """Eject the endpoints of servers that are silent."""
        for origin, (heard_ago_s, short_s, others) in self._runtime.upstream.silences(SEVERAL):
            # At first as if it were fast: whose it is need not be known of any other.
            if not others and is_stalled(short_s, heard_ago_s, 0.0):
                self._look_at(origin, heard_ago_s, short_s)

    def _look_at(self, origin: Origin, heard_ago_s: float, short_s: Sequence[float]) -> None:
        numbers = self._runtime.origins.endpoints_at(origin)
        tail_s = self._tail_s(numbers)
        if tail_s is not None and is_stalled(short_s, heard_ago_s, tail_s):
            self._suspect(numbers, silent_s=heard_ago_s, tail_s=tail_s, calls=len(short_s))

    def _tail_s(self, numbers: Sequence[int]) -> float | None:
        """Return within what time 19 of 20 streams begin, of the slowest endpoint with calls under
        way; None where that is not known of each of them."""
        runtime = self._runtime
        slowest_ms = None
        for number in numbers:
            if not runtime.pulse.under_way_at[number]:
                continue
            late_ms = runtime.tails.late_ms(number, streamed=True)
            if late_ms is None:
                return None
            slowest_ms = max(late_ms, slowest_ms or 0.0)
        return None if slowest_ms is None else slowest_ms / 1_000

    def _suspect(self, numbers: Sequence[int], **told: float) -> None:
        runtime = self._runtime
        fresh = [each for each in numbers if not runtime.pulse.doubts.has(each)]
        for number in fresh:
            runtime.pulse.suspect(number, runtime.now_s())
        if fresh:
            runtime.silences += 1
            names = [runtime.market.endpoint(each).name for each in fresh]
            _log.warning("a server has gone silent", endpoints=names, **told)
