"""Finds what an answer tells beside its text, for one that has no text.

A caller may have the text taken away, by a word to stop at, and be told the probabilities of the
first tokens all the same, or at which word it stops: all that who classifies wants to know. That is
delivered, and paid for. So is sound, and the input of a tool that is no function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from broker.upstream.faults import UNREADABLE
from broker.upstream.large_answers import NULL, is_told

_LOGPROBS: Final = ("logprobs",)
_STOP_WORDS: Final = ("stop",)
_STOP_TOKENS: Final = ("stop_token_ids",)
_OTHERS: Final = ("tools", "audio")


class Beside(msgspec.Struct, frozen=True, gc=False):
    """What a caller has asked to be told beside a text, or may be."""

    logprobs: bool = False
    stop_words: bool = False
    stop_tokens: bool = False
    """Else one is told where a model ends by itself: SGLang names its last token."""


_NOTHING: Final = Beside()


class _First(msgspec.Struct, array_like=True, gc=False):
    """Of a list, whatever is in it."""

    first: msgspec.Raw = NULL


class _Logprobs(msgspec.Struct, gc=False):
    content: _First | None = None
    """Of a chat."""
    tokens: _First | None = None
    """Of a completion."""


class _Custom(msgspec.Struct, gc=False):
    input: str = ""


class _ToolCall(msgspec.Struct, gc=False):
    custom: _Custom | None = None


class _Message(msgspec.Struct, gc=False):
    tool_calls: list[_ToolCall] | None = None
    audio: msgspec.Raw = NULL


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    delta: _Message | None = None
    logprobs: _Logprobs | None = None
    stop_reason: str | int | None = None
    """As vLLM names the word, or the token, at which it stops."""
    matched_stop: str | int | None = None
    """As SGLang does."""

    def tells(self, asked: Beside) -> bool:
        said = self.delta or self.message
        if said is not None:
            custom = any(call.custom and call.custom.input for call in said.tool_calls or ())
            if custom or is_told(said.audio):
                return True
        stops = self.stop_reason, self.matched_stop
        if asked.stop_words and any(isinstance(each, str) for each in stops):
            return True
        if asked.stop_tokens and any(isinstance(each, int) for each in stops):
            return True
        told = self.logprobs if asked.logprobs else None
        return told is not None and any(
            each is not None and is_told(each.first) for each in (told.content, told.tokens)
        )


class _Answer(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


_answer: Final = msgspec.json.Decoder(_Answer).decode


def beside_of(members: Mapping[str, msgspec.Raw], *, hides_logprobs: bool) -> Beside | None:
    """Return what a request asks for beside a text; None, as mostly, for nothing.
    `hides_logprobs`: they were asked for by the broker alone."""
    asked = Beside(
        not hides_logprobs and _has(members, _LOGPROBS),
        _has(members, _STOP_WORDS),
        _has(members, _STOP_TOKENS),
    )
    return asked if asked != _NOTHING or _has(members, _OTHERS) else None


def told_beside(answer: bytes, asked: Beside) -> int:
    """Return how many choices of an answer, or of a chunk, tell what was asked for beside a text;
    of what is not as it should be, none."""
    try:
        choices = _answer(answer).choices or ()
    except UNREADABLE:
        return 0
    return sum(each.tells(asked) for each in choices)


def _has(members: Mapping[str, msgspec.Raw], names: tuple[str, ...]) -> bool:
    raws = [members[each] for each in names if each in members]
    return any(bytes(memoryview(raw)[:5]) not in (b"null", b"false") for raw in raws)
