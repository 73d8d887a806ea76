"""Writes down a streamed answer as the whole one that it would have been, to be judged by.

It hears the data of each event on its way to the caller, and takes out of it what only the broker
asked for. What cannot be read, or is too long to be looked at, goes through as it is and unheard.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from broker.core.wire.counting import count_of

BYTES_MAX: Final = 1_048_576
"""A longer answer is not judged by its form."""


LOGPROBS_MAX: Final = 65_536
"""Of an answer's tokens: so many tell how sure it is."""
OBJECTS_MAX: Final = 4 * LOGPROBS_MAX
"""Of what tells of tokens by an object each, and of others beside each; of more none is read."""
_READ_BYTES: Final = 1_048_576
_NULL: Final = msgspec.Raw(b"null")


class _Function(msgspec.Struct, frozen=True, gc=False):
    name: str | None = None
    arguments: msgspec.Raw = _NULL


class _ToolCall(msgspec.Struct, gc=False):
    index: int = 0
    function: _Function = _Function()


class _Delta(msgspec.Struct, gc=False):
    content: msgspec.Raw = _NULL
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: msgspec.Raw = _NULL
    """Read apart, for numbers in it that are none not to hide the rest."""


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None


_chunk: Final = msgspec.json.Decoder(_Chunk).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_choices: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class _Spoken:
    """What one choice has said so far."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.tools: dict[int, tuple[str, list[str]]] = {}
        self.called: tuple[str, list[str]] | None = None
        self.finish_reason: str | None = None

    def hear(self, choice: _Choice) -> None:
        """Take a part of it."""
        delta = choice.delta or _Delta()
        text = choice.text if choice.delta is None else text_in(delta.content)
        if text is not None:
            self.text.append(text)
        if delta.refusal:
            self.refusal.append(delta.refusal)
        for each in delta.tool_calls or ():
            self.tools[each.index] = _continued(self.tools.get(each.index), each.function)
        if delta.function_call is not None:
            self.called = _continued(self.called, delta.function_call)
        self.finish_reason = choice.finish_reason or self.finish_reason

    def whole(self) -> dict[str, Any]:
        """Return the choice as a whole answer has it."""
        message: dict[str, Any] = {"content": "".join(self.text) or None}
        if self.refusal:
            message["refusal"] = "".join(self.refusal)
        if self.tools:
            message["tool_calls"] = [{"function": _function(each)} for each in self.tools.values()]
        if self.called is not None:
            message["function_call"] = _function(self.called)
        return {"message": message, "finish_reason": self.finish_reason}


class Transcript:
    """Told of the events of one stream as they come."""

    def __init__(self, *, hides_logprobs: bool = False) -> None:
        """`hides_logprobs`: they were not asked for by the caller."""
        self.logprobs: list[float] = []
        """Of the tokens of the first choice."""
        self._hides = hides_logprobs
        self._spoken: dict[int, _Spoken] = {}
        self._left = BYTES_MAX

    @property
    def is_whole(self) -> bool:
        """True while nothing was left out."""
        return self._left >= 0

    @property
    def text(self) -> str:
        """What the first choice has said."""
        return "".join(self._spoken[0].text) if 0 in self._spoken else ""

    def hear(self, payload: bytes) -> bytes:
        """Take the data of an event; return it as the caller is to have it."""
        self._left -= len(payload)
        if self._left >= 0:
            self._write_down(payload)
        return _without_logprobs(payload) if self._hides else payload

    def answer(self) -> bytes:
        """Return the whole answer as JSON, without what no check looks at."""
        choices = [self._spoken[at].whole() for at in sorted(self._spoken)]
        return msgspec.json.encode({"choices": choices})

    def _write_down(self, payload: bytes) -> None:
        try:
            for each in _chunk(payload).choices or ():
                self._spoken.setdefault(each.index, _Spoken()).hear(each)
                if not each.index:
                    self.logprobs += read_logprobs(each.logprobs)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return


class _Only(msgspec.Struct):
    logprobs: msgspec.Raw = _NULL


class _First(msgspec.Struct, array_like=True):
    choice: _Only


class _Whole(msgspec.Struct):
    choices: _First


class _Sure(msgspec.Struct, gc=False):
    logprob: float | None


class _Told(msgspec.Struct):
    """As one door tells probabilities, and as the other."""

    token_logprobs: list[float | None] | None = None
    content: list[_Sure] | None = None


class _LongNumbers(msgspec.Struct):
    """The first of these alone."""

    token_logprobs: msgspec.Raw = _NULL


class _Long(_LongNumbers):
    content: list[_Sure] | None = None


_whole: Final = msgspec.json.Decoder(_Whole).decode
_told: Final = msgspec.json.Decoder(_Told | None).decode
_long: Final = msgspec.json.Decoder(_Long | None).decode
_long_numbers: Final = msgspec.json.Decoder(_LongNumbers | None).decode
_numbers: Final = msgspec.json.Decoder(list[float | None] | None).decode
_text: Final = msgspec.json.Decoder(str).decode


def logprobs_of(answer: bytes) -> list[float]:
    """Return the log-probabilities of the tokens of a whole answer's first choice."""
    try:
        return read_logprobs(_whole(answer).choices.choice.logprobs)
    except (msgspec.MsgspecError, RecursionError):
        return []


def read_logprobs(raw: msgspec.Raw) -> list[float]:
    """Return the log-probabilities of the first LOGPROBS_MAX tokens, as a choice of either door
    tells them, or of as many as stand in a megabyte of numbers alone; none of it is made into more
    than these, for servers tell much beside."""
    try:
        told = _told(raw) if memoryview(raw).nbytes <= _READ_BYTES else _begin_of(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    if told is None:
        return []
    found = told.token_logprobs or [each.logprob for each in told.content or ()]
    first = found[:LOGPROBS_MAX]
    return [each for each in first if each is not None and math.isfinite(each)]


def _begin_of(raw: msgspec.Raw) -> _Told | None:
    """Return what is read of much that is told. Raises what msgspec raises, and ValueError for one
    long number."""
    dense = count_of(b"{", memoryview(raw)) > OBJECTS_MAX
    told = _long_numbers(raw) if dense else _long(raw)
    if told is None:
        return None
    numbers = memoryview(told.token_logprobs)
    if numbers.nbytes > _READ_BYTES:
        begin = bytes(numbers[:_READ_BYTES])
        numbers = memoryview(begin[: begin.rindex(b",")] + b"]")
    return _Told(_numbers(numbers), told.content if isinstance(told, _Long) else None)


def text_in(raw: msgspec.Raw) -> str | None:
    """Return what a string says; None for any other JSON."""
    return _text(raw) if bytes(memoryview(raw)[:1]) == b'"' else None


def _continued(before: tuple[str, list[str]] | None, function: _Function) -> tuple[str, list[str]]:
    name, arguments = before or ("", [])
    told = function.arguments
    if bytes(memoryview(told)[:5]) != b"null":
        text = text_in(told)
        arguments.append(msgspec.json.format(told, indent=-1).decode() if text is None else text)
    return name + (function.name or ""), arguments


def _function(told: tuple[str, list[str]]) -> dict[str, str]:
    name, arguments = told
    return {"name": name, "arguments": "".join(arguments)}


def _without_logprobs(payload: bytes) -> bytes:
    """Return the data of an event without probabilities, all else as it came."""
    if b'"logprobs"' not in payload and b"\\u" not in payload:  # which may spell it
        return payload
    try:
        members = _members(payload)
        choices = _choices(members["choices"])
    except (msgspec.MsgspecError, KeyError, RecursionError):
        return payload
    if not [each for each in choices if each.pop("logprobs", None) is not None]:
        return payload
    return msgspec.json.encode({**members, "choices": choices})
