"""Reads an answer of a cascade as far as it has to be known to be judged, before the caller has it.

A stream is held back up to a bound, or until its first tokens tell enough. What tells how sure an
answer is, its tokens' probabilities, is asked for, and left out where a server does not take that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from broker.core.answers.taken_apart import Parts, take_apart
from broker.core.answers.transcript import Transcript
from broker.core.call import OpenAiBody
from broker.core.cascade import Cascade
from broker.core.dispatch import Attempt
from broker.core.metering import Delivered
from broker.core.outcome import Fault
from broker.flows.calls.exchange import StreamedAnswer, WholeAnswer, open_stream, read_whole
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed, malformed

LOGPROBS: Final = frozenset({"logprobs", "top_logprobs"})
"""Members of a request of which servers refuse the second without the first."""
JUDGED_BYTES_MAX: Final = 8 << 20
"""Of an answer that is no stream."""
_LONG_BYTES: Final = 1 << 20
"""Others have their turn between the reading of a longer one and its taking apart."""


@dataclass(slots=True)
class Reply:
    """An answer, as far as it came."""

    attempt: Attempt
    answer: WholeAnswer | StreamedAnswer
    parts: Parts | None
    """Of an answer that is no stream."""
    ended: bool
    """It came whole."""
    beyond: bool = False
    """It is longer than what may be held back."""

    @property
    def body(self) -> bytes:
        """The answer as one, for its form to be checked."""
        if isinstance(self.answer, WholeAnswer):
            return self.answer.body
        return b"" if self.answer.scribe is None else self.answer.scribe.answer()

    @property
    def is_known(self) -> bool:
        """All that came of it was written down, so its form can be checked."""
        if isinstance(self.answer, WholeAnswer):
            return True
        return self.answer.scribe is not None and self.answer.scribe.is_whole

    @property
    def text(self) -> str:
        """What the first choice says."""
        if isinstance(self.answer, StreamedAnswer):
            return "" if self.answer.scribe is None else self.answer.scribe.text
        return "" if self.parts is None else self.parts.text

    @property
    def logprobs(self) -> list[float]:
        """Of the tokens that came, of the first choice."""
        if isinstance(self.answer, StreamedAnswer):
            return [] if self.answer.scribe is None else self.answer.scribe.logprobs
        return [] if self.parts is None else self.parts.logprobs

    def cut(self) -> None:
        """Stop the work upstream, if it goes on."""
        if isinstance(self.answer, StreamedAnswer) and not self.answer.response.done:
            self.answer.response.abort()


async def overhear(tab: Tab, attempt: Attempt, *, held: bool) -> Reply:
    """Make an attempt, and hold back of its answer what it takes to judge; of a stream only what
    comes before its first content where it is not `held`. Raises AttemptFailed."""
    cascade, body = tab.call.cascade, tab.call.body
    assert cascade is not None
    assert isinstance(body, OpenAiBody)
    try:
        return await _overhear(tab, attempt, held=held)
    except AttemptFailed as failure:
        refused = failure.outcome.fault is Fault.CALLER_FAULT
        if not (refused and cascade.hides_logprobs):
            raise
    members = {name: raw for name, raw in body.members.items() if name not in LOGPROBS}
    with asking_as(tab, msgspec.structs.replace(body, members=members)):
        return await _overhear(tab, attempt, held=held)


async def overhear_whole(tab: Tab, attempt: Attempt) -> Reply:
    """Make an attempt whose answer is read whole. Raises AttemptFailed."""
    whole = await read_whole(tab, attempt)
    if len(whole.body) > JUDGED_BYTES_MAX:
        raise malformed("an answer that is too long to be judged", 200)
    if len(whole.body) > _LONG_BYTES:
        await asyncio.sleep(0)  # it was gone through once, and will be several times
    try:
        return Reply(attempt, whole, take_apart(whole.body), ended=True)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise malformed(f"an answer that cannot be read: {error}", 200) from None


@contextlib.contextmanager
def asking_as(tab: Tab, body: OpenAiBody) -> Iterator[None]:
    """Send another body while the block lasts."""
    before = tab.call, tab.asked
    tab.call = tab.asked = msgspec.structs.replace(tab.call, body=body)
    try:
        yield
    finally:
        tab.call, tab.asked = before


def delivered_so_far(reply: Reply, tab: Tab) -> Delivered:
    """Return what is paid for of an answer, all of it or what came until it was cut."""
    answer, body = reply.answer, tab.call.body
    if isinstance(answer, WholeAnswer):
        return answer.delivered
    assert isinstance(body, OpenAiBody)
    return answer.reader.delivered(body.choices, complete=reply.ended)


async def _overhear(tab: Tab, attempt: Attempt, *, held: bool) -> Reply:
    cascade, body = tab.call.cascade, tab.call.body
    assert cascade is not None
    assert isinstance(body, OpenAiBody)
    if not body.stream:
        return await overhear_whole(tab, attempt)
    scribe = Transcript(hides_logprobs=cascade.hides_logprobs)
    attempt.held_back = held
    answer = await open_stream(tab, attempt, scribe)
    reply = Reply(attempt, answer, None, ended=answer.reader.ended)
    if held:
        try:
            await _hold_back(reply, answer, cascade)
        except BaseException:
            answer.response.abort()
            raise
    return reply


async def _hold_back(reply: Reply, answer: StreamedAnswer, cascade: Cascade) -> None:
    reader, opening = answer.reader, bytearray(answer.opening)
    while not (reader.ended or _is_heard(answer, cascade)):
        if len(opening) > cascade.buffer_bytes:
            reply.beyond = True
            break
        data = await (reader.catch_up() if reader.behind else answer.response.next_chunk())
        if data is None:
            reader.finish()
            break
        opening += reader.feed(data)
        if reader.failure is not None:
            raise reader.failure
    reply.ended, answer.opening = reader.ended, bytes(opening)


def _is_heard(answer: StreamedAnswer, cascade: Cascade) -> bool:
    """True when enough of the first tokens have come."""
    enough = cascade.decide_after_tokens
    told = 0 if answer.scribe is None else len(answer.scribe.logprobs)
    return enough is not None and told >= enough
