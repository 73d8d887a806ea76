"""Continues a stream that broke off: the next endpoint goes on from what was delivered.

A chat is sent on with what came so far as the last turn, the assistant's, to be continued; a
completion with it behind its prompt. The caller sees one stream, with the identity of the first;
each attempt is metered and charged by itself. An answer that a half cannot be continued from, such
as a tool call or JSON, breaks off as ever, and its error says why it was not continued.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from broker.core.call import ROLE_TOKENS, Call, OpenAiBody
from broker.core.catalog import Task
from broker.core.dispatch import Attempt
from broker.core.outcome import Fault, Outcome
from broker.flows.calls.exchange import StreamedAnswer, open_stream
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed
from broker.upstream.sse import SseSplitter, data_of
from pricing.money import charge_nanos

_ONE_PIECE: Final = {
    "tools": "it may call tools",
    "functions": "it may call functions",
    "response_format": "it may be JSON",
    "guided_json": "it has a form",
    "guided_regex": "it has a form",
    "guided_grammar": "it has a form",
    "guided_choice": "it has a form",
    "structured_outputs": "it has a form",
    "grammar": "it has a form",
    "json_schema": "it has a form",
    "logprobs": "it tells probabilities",
    "echo": "it repeats its prompt",
    "suffix": "its end is given",
}
_NONE: Final = (b"null", b"false", b"0", b"[]", b'{"type":"text"}')
_IDENTITY: Final = ("id", "object", "created", "model", "system_fingerprint")
IDENTITY_BYTES_MAX: Final = 1_024
"""Of each of these: it is repeated in every event that follows."""
_SPLIT_BYTES: Final = 4_096
_DATA: Final = re.compile(rb"(?:\A|(?<=[\r\n]))data:")
_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text: Final = msgspec.json.Decoder(str).decode

Members = dict[str, msgspec.Raw]
"""Of an event's data; what they say is taken apart no further than the identity of a stream goes: a
megabyte of empty lists, each made an object, would hold all other calls up for 0.25 s."""


class NotContinued(Exception):
    """Why a stream that broke off is not continued."""


class Joint:
    """Gives the events of a later attempt the identity of the first, so that they are one stream;
    hears them on their way as `broker.upstream.streaming.Scribe`."""

    def __init__(self, first: Members) -> None:
        self._identity = identity_of(first)

    def hear(self, payload: bytes) -> bytes:
        """Return the data of an event with the first's identity, and without a second role."""
        try:
            chunk = _members(payload)
            if b'"role"' in payload and _is("[", chunk.get("choices")):
                choices = [_without_role(each) for each in _list(chunk["choices"])]
                chunk["choices"] = msgspec.Raw(msgspec.json.encode(choices))
        except (msgspec.DecodeError, RecursionError):
            return payload
        return msgspec.json.encode(chunk | self._identity)


async def continue_stream(tab: Tab, first: Members, text: str) -> StreamedAnswer:
    """Return the stream of the next endpoint, going on after `text`; `first` is the first event's
    data. The attempt that broke off has been ended. Raises NotContinued with the reason."""
    call = _going_on(tab.call, text)
    while (attempt := tab.go_on_after_cut()) is not None:
        try:
            _fit(tab, call, attempt)
            return await open_stream(tab, attempt, Joint(first))
        except AttemptFailed as failure:
            tab.end(failure.outcome)
            if not failure.outcome.fails_over:
                raise NotContinued("the call is over") from None
        except NotContinued:
            tab.end(Outcome(Fault.CALLER_LEFT, detail="not continued"))
            raise
        except BaseException:
            tab.end(Outcome(Fault.CALLER_LEFT))
            raise
    raise NotContinued("there is no other endpoint, time or retry left")


def identity_of(event: Members) -> Members:
    """Return what is alike in all events of one stream, of no more than IDENTITY_BYTES_MAX each."""
    told = {name: event[name] for name in _IDENTITY if name in event}
    return {name: raw for name, raw in told.items() if memoryview(raw).nbytes <= IDENTITY_BYTES_MAX}


def tokens_together(attempts: Iterable[Attempt]) -> tuple[int, int]:
    """Return the tokens (in, out) of an answer in parts: those of its first prompt, and all that
    came. Who lost a race has no part in it; where nothing was counted, for so a provider may claim,
    there are none."""
    parts = [each for each in attempts if each.tokens_out and not each.lost]
    return parts[0].tokens_in if parts else 0, sum(each.tokens_out for each in parts)


def why_whole(body: OpenAiBody) -> str | None:
    """Return why half of an answer cannot be continued; None: it can."""
    if body.choices != 1:
        return "it has several choices"
    for name, reason in _ONE_PIECE.items():
        raw = body.members.get(name)
        if raw is not None and bytes(raw) not in _NONE:
            return reason
    return None


def first_event(opening: bytes) -> Members:
    """Return the first event's data of a stream's opening; empty where there is none to be read."""
    found = _DATA.search(opening)
    splitter = SseSplitter(len(opening))
    # Not all of it at once: behind the first event there may be very many.
    for begin in range(
        len(opening) if found is None else found.start(), len(opening), _SPLIT_BYTES
    ):
        for event in splitter.feed(opening[begin : begin + _SPLIT_BYTES]):
            try:
                return _members(data_of(event) or b"")
            except (msgspec.DecodeError, RecursionError):
                return {}
    return {}


def _is(begin: str, raw: msgspec.Raw | None) -> bool:
    return raw is not None and bytes(memoryview(raw)[:1]) == begin.encode()


def _without_role(choice: msgspec.Raw) -> Members | msgspec.Raw:
    members = _members(choice) if _is("{", choice) else {}
    if not _is("{", members.get("delta")):
        return choice
    delta = _members(members["delta"])
    delta.pop("role", None)
    return members | {"delta": msgspec.Raw(msgspec.json.encode(delta))}


def _going_on(call: Call, text: str) -> Call:
    """Return the call as the next endpoint gets it. Raises NotContinued."""
    body = call.body
    assert isinstance(body, OpenAiBody)
    members = dict(body.members)
    try:
        if call.wanted.task is Task.CHAT:
            turn = {"role": "assistant", "content": text}
            turns = [*_list(members["messages"]), msgspec.Raw(msgspec.json.encode(turn))]
            members["messages"] = msgspec.Raw(msgspec.json.encode(turns))
            members["add_generation_prompt"] = msgspec.Raw(b"false")
            members["continue_final_message"] = msgspec.Raw(b"true")
        else:
            members["prompt"] = msgspec.Raw(msgspec.json.encode(_text(members["prompt"]) + text))
    except msgspec.DecodeError:
        raise NotContinued("its prompt is not one text") from None
    longer = len(text.encode()) + ROLE_TOKENS
    wanted = msgspec.structs.replace(
        call.wanted, tokens_in_bound=call.wanted.tokens_in_bound + longer
    )
    body = msgspec.structs.replace(body, members=members, size_bytes=body.size_bytes + longer)
    return msgspec.structs.replace(call, body=body, wanted=wanted)


def _fit(tab: Tab, call: Call, attempt: Attempt) -> None:
    """Have an attempt ask for what is left of the answer, within the hold. Raises NotContinued."""
    candidate = attempt.candidate
    came = sum(each.tokens_out for each in tab.dispatch.attempts if not each.lost)
    left = candidate.tokens_out_max - came
    if left < 1:
        raise NotContinued("it had come to its limit")
    most = charge_nanos(candidate.rate.picos(call.wanted.tokens_in_bound, left))
    if tab.charge_nanos + most > tab.hold.amount_nanos:
        raise NotContinued("what is held does not cover it")
    attempt.candidate = msgspec.structs.replace(candidate, tokens_out_max=left, ceiling_nanos=most)
    tab.asked = call
