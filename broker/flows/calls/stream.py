"""The rest of a stream after its commit point: pieces for the caller, settled before the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec

from broker.core.call import OpenAiBody
from broker.core.metering import Delivered
from broker.core.outcome import Fault, Outcome
from broker.errors import Unavailable
from broker.flows.calls.continue_stream import (
    NotContinued,
    continue_stream,
    first_event,
    identity_of,
    tokens_together,
    why_whole,
)
from broker.flows.calls.exchange import StreamedAnswer, told
from broker.flows.calls.inspect_answer import inspect, is_drawn
from broker.flows.calls.settle import settle, settle_later
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed
from pricing.money import format_usd

HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
)
DRAIN_S = 0.5
"""A provider that has said `[DONE]` has so long to end its answer."""


class Stream:
    """What is left of an answer that streams. Iterate `pieces` to its end, or close it."""

    def __init__(self, tab: Tab, answer: StreamedAnswer) -> None:
        self._tab = tab
        self._answer = answer
        self._opening = answer.opening
        self._texts: list[str] = []
        """Of the attempts that broke off and were continued."""
        self._not_continued = ""
        """Why a stream that broke off was not continued, though the caller allows it."""
        self.is_over = False
        """The piece that was yielded is the last, and nothing is waited for behind it."""
        self.verdict = answer.verdict
        """Of a cascade: what is known before the first byte, and all there is at the end."""
        if tab.turn is not None:
            tab.turn.hear(answer.opening)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield bytes for the caller. After a failure the last piece is an SSE error event."""
        reader, response = self._answer.reader, self._answer.response
        turn = self._tab.turn
        try:
            yield self._answer.opening
            while not reader.ended:
                try:
                    data = await (reader.catch_up() if reader.behind else response.next_chunk())
                    if data is None:
                        reader.finish()
                    elif piece := reader.feed(data):
                        if turn is not None:
                            turn.hear(piece)
                        yield piece
                    if reader.failure is not None:
                        raise reader.failure
                except AttemptFailed as failure:
                    await self._go_on(failure)
                    reader, response = self._answer.reader, self._answer.response
                    yield self._answer.opening
            await self._tab.end_counted(Outcome(status=200), self._delivered(complete=True))
            tail = await self._settle()
            self.is_over = response.done
        except AttemptFailed as failure:
            response.abort()
            yield await self._fail(failure.outcome)
            return
        except Unavailable as error:
            response.abort()
            yield error_event(error.code, error.detail)
            return
        except BaseException as error:
            left = isinstance(error, asyncio.CancelledError | GeneratorExit)
            self._leave(*((499, "caller_left") if left else (500, "internal_error")))
            raise
        try:
            yield tail
            self._look()
            await self._drain()
        finally:
            response.abort()

    async def _go_on(self, failure: AttemptFailed) -> None:
        """Have the next endpoint go on after what was delivered. Raises `failure` where nobody
        does."""
        tab, reader, body = self._tab, self._answer.reader, self._tab.call.body
        assert isinstance(body, OpenAiBody)
        late = failure.outcome.fault is Fault.TOTAL_TIMEOUT
        if not tab.call.continues or late or not failure.outcome.fails_over:
            raise failure
        self._answer.response.abort()
        text = "".join(reader.texts)
        reason = why_whole(body)
        if reason is None and len(text.encode()) != reader.text_bytes:
            reason = "more than text had come"
        await tab.end_counted(failure.outcome, self._delivered(complete=False))
        try:
            if reason is not None:
                raise NotContinued(reason)
            self._texts.append(text)
            first = first_event(self._opening)
            self._answer = await continue_stream(tab, first, "".join(self._texts))
        except NotContinued as refusal:
            self._not_continued = str(refusal)
            raise failure from None
        if tab.turn is not None:
            tab.turn.hear(self._answer.opening)

    async def _settle(self) -> bytes:
        """Settle a stream that came whole; return its tail. Raises HoldExpired."""
        tail = self._tail()
        if self._tab.turn is not None:
            await self._tab.keep_answer(HEADERS, tail)
        await settle(self._tab, 200, "served")
        return tail

    def _look(self) -> None:
        """Look at what was written down of an answer that came whole, if it was drawn."""
        scribe, tab = self._answer.scribe, self._tab
        if scribe is not None and scribe.is_whole and (tab.call.cascade is None or is_drawn(tab)):
            inspect(tab, scribe.answer())

    def _leave(self, status: int, code: str) -> None:
        """Nobody waits for the rest: stop the work upstream and charge what was delivered."""
        self._answer.response.abort()
        outcome = Outcome(Fault.CALLER_LEFT, detail="" if status == 499 else code)
        self._tab.end_when_settled(outcome, self._delivered(complete=False))
        settle_later(self._tab, status, code)

    async def _fail(self, outcome: Outcome) -> bytes:
        """Charge what was delivered, then say that it broke off: never a clean end."""
        if outcome.fault is Fault.TOTAL_TIMEOUT:
            outcome = Outcome(Fault.DEADLINE, status=200)
        code = "deadline_passed" if outcome.fault is Fault.DEADLINE else "provider_cut_off"
        try:
            await self._tab.end_counted(outcome, self._delivered(complete=False))
        except asyncio.CancelledError:
            settle_later(self._tab, 200, code)  # the caller has left, and hears no more of it
            raise
        try:
            await settle(self._tab, 200, code)
        except Unavailable as error:
            code = error.code
        cost = format_usd(self._tab.charge_nanos)
        message = f"The answer broke off ({outcome.fault}); what came cost {cost} USD."
        if self._not_continued:
            message += f" It was not continued: {self._not_continued}."
        return error_event(code, message, cost)

    def _delivered(self, *, complete: bool) -> Delivered:
        body = self._tab.call.body
        assert isinstance(body, OpenAiBody)
        return self._answer.reader.delivered(body.choices, complete=complete)

    async def _drain(self) -> None:
        """Let the connection come to its end, so that it can be used again; but not for long."""
        response = self._answer.response
        if response.done:
            return
        try:
            async with asyncio.timeout(DRAIN_S):
                while await response.next_chunk() is not None:
                    pass
        except (AttemptFailed, TimeoutError):
            return

    def _tail(self) -> bytes:
        """The usage, the cost and `[DONE]`: kept back until the settlement was durable."""
        cost: dict[str, object] = {
            "call_id": self._tab.call.id_text,
            "endpoint": self._tab.endpoint.name,
            "price_version": self._tab.decision.price_version,
            "cost_usd": format_usd(self._tab.charge_nanos),
        }
        if self._answer.at_end is not None:
            self.verdict = self._answer.at_end()
        if self.verdict is not None:
            cost |= told(self.verdict)
        paid = self._answer.attempt
        tokens, identity = (paid.tokens_in, paid.tokens_out), None
        if self._texts:
            identity = identity_of(first_event(self._opening))
            tokens = tokens_together(self._tab.dispatch.attempts)
        return self._answer.reader.tail(msgspec.json.encode(cost), tokens, identity)


def error_event(code: str, message: str, cost_usd: str | None = None) -> bytes:
    """Return an SSE event with an error in OpenAI's shape."""
    error: dict[str, object] = {"message": message, "type": "provider_error", "code": code}
    if cost_usd is not None:
        error["broker"] = {"cost_usd": cost_usd}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"
