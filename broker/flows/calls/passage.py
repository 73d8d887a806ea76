"""The rest of an inference's long answer: pieces for the caller, settled before the last.

It commits at its first byte. One that breaks off costs nothing, for a part of a tensor is none. Who
leaves while it comes has had it made, and pays for the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from broker.core.outcome import Fault, Outcome
from broker.flows.calls.exchange import LongAnswer
from broker.flows.calls.inferred import DELIVERED
from broker.flows.calls.settle import settle, settle_later
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed


class Passage:
    """What is left of a long answer. Iterate `pieces` to its end, or close it."""

    def __init__(self, tab: Tab, answer: LongAnswer) -> None:
        self.answer = answer
        self._tab = tab

    @property
    def cost_nanos(self) -> int:
        """What the call costs once it has been delivered: an inference has one price."""
        return self.answer.attempt.candidate.ceiling_nanos

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield bytes for the caller, the last once the call is settled. Raises AttemptFailed when
        the answer breaks off, after which it must not end cleanly; Unavailable."""
        response, tab = self.answer.response, self._tab
        piece = self.answer.opening
        try:
            while (data := await response.next_chunk()) is not None:
                yield piece
                piece = data
            tab.end(Outcome(status=200), DELIVERED)
            await settle(tab, 200, "served")
        except AttemptFailed as failure:
            outcome = failure.outcome
            if outcome.fault is Fault.TOTAL_TIMEOUT:
                outcome = Outcome(Fault.DEADLINE, status=200)
            tab.end(outcome)
            late = outcome.fault is Fault.DEADLINE
            await settle(tab, 200, "deadline_passed" if late else "provider_cut_off")
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self._leave(499, "caller_left")
            raise
        except BaseException:
            self._leave(500, "internal_error")
            raise
        yield piece

    def _leave(self, status: int, code: str) -> None:
        self.answer.response.abort()
        detail = "" if status == 499 else code
        self._tab.end(Outcome(Fault.CALLER_LEFT, detail=detail), DELIVERED)
        settle_later(self._tab, status, code)
