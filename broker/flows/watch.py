"""Watches for servers that have gone silent, so that others get their calls before they time out.

It looks at the calls under way now and then, which costs no call anything. Silent is a server as a
whole: while any of its models answers, the others' calls run into their timeouts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from broker.core.pulse import TTFT_MS_PRIOR
from broker.core.stalls import SEVERAL, is_stalled
from broker.flows.runtime import Runtime
from broker.upstream.client import Origin

EVERY_S: Final = 0.5
TAIL_OF_MEAN: Final = 3.0
"""Times the mean that the tail is taken for, until enough answers were seen to know it."""

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
        for origin, (heard_ago_s, *waiting) in self._runtime.upstream.silences(SEVERAL):
            # At first as if it were fast: whose it is need not be known of any other.
            if any(is_stalled(each, heard_ago_s, 0.0) for each in waiting):
                self._look_at(origin, heard_ago_s, waiting)

    def _look_at(self, origin: Origin, heard_ago_s: float, waiting: Sequence[list[float]]) -> None:
        numbers = self._runtime.origins.endpoints_at(origin)
        for streamed, ages_s in enumerate(waiting):
            tails_s = [self._tail_s(each, streamed=bool(streamed)) for each in numbers]
            tail_s = max((each for each in tails_s if each is not None), default=None)
            if tail_s is not None and is_stalled(ages_s, heard_ago_s, tail_s):
                self._suspect(numbers, silent_s=heard_ago_s, tail_s=tail_s, calls=len(ages_s))
                return

    def _tail_s(self, number: int, *, streamed: bool) -> float | None:
        """Return what 19 of 20 answers of an endpoint take at most; None where none is known."""
        runtime = self._runtime
        late_ms = runtime.tails.late_ms(number, streamed=streamed)
        if late_ms is None:
            mean_ms = float(runtime.pulse.ttft_ms[number])
            late_ms = None if mean_ms == TTFT_MS_PRIOR else TAIL_OF_MEAN * mean_ms
        return None if late_ms is None else late_ms / 1_000

    def _suspect(self, numbers: Sequence[int], **told: float) -> None:
        runtime = self._runtime
        fresh = [each for each in numbers if not runtime.pulse.is_doubtful(each)]
        for number in fresh:
            runtime.pulse.suspect(number, runtime.now_s())
        if fresh:
            runtime.silences += 1
            names = [runtime.market.endpoint(each).name for each in fresh]
            _log.warning("a server has gone silent", endpoints=names, **told)
