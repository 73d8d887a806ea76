"""Takes a whole answer of a cascade apart only as far as it is judged by and changed.

A provider writes it, and of eight megabytes of empty lists, each made an object, all other calls
would wait for more than a second: so what is not looked at stays raw.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker.core.answers.transcript import read_logprobs, text_in
from broker.core.wire.counting import count_of

PARTS_MAX: Final = 10_000
"""Choices, and members of the answer and of its choices beside what these say, and what is told of
the prompt's tokens."""
_NULL: Final = msgspec.Raw(b"null")


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = _NULL


class _Choice(msgspec.Struct, gc=False):
    message: msgspec.Raw = _NULL
    text: msgspec.Raw = _NULL
    logprobs: msgspec.Raw = _NULL
    prompt_logprobs: msgspec.Raw = _NULL


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    prompt_logprobs: msgspec.Raw = _NULL
    """As vLLM tells them of a chat, of a completion with its choice: a part of some members for
    each token of a prompt."""


_answer: Final = msgspec.json.Decoder(_Answer).decode
_message: Final = msgspec.json.Decoder(_Message | None).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_choices: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class Parts:
    """An answer with at least one choice."""

    def __init__(
        self, members: dict[str, msgspec.Raw], choices: list[dict[str, msgspec.Raw]]
    ) -> None:
        self._members, self._choices = members, choices
        self.logprobs = read_logprobs(choices[0].get("logprobs", _NULL))
        """Of the tokens of the first choice."""

    @property
    def text(self) -> str:
        """What the first choice says."""
        first = self._choices[0]
        message = _message(first.get("message", _NULL))
        return text_in(first.get("text", _NULL) if message is None else message.content) or ""

    def whole(self, verdict: object, *, hides_logprobs: bool) -> bytes:
        """Return the answer with `verdict` as its `broker`, without its choices' `logprobs` where
        these are hidden."""
        members: dict[str, object] = {**self._members, "broker": verdict}
        if hides_logprobs:
            for each in self._choices:
                each.pop("logprobs", None)
            members["choices"] = self._choices
        return msgspec.json.encode(members)


def take_apart(body: bytes) -> Parts:
    """Return the parts of an answer. Raises what msgspec raises; ValueError for one without choices
    or with more than PARTS_MAX parts beside what its choices say."""
    colons, objects = count_of(b":", body), count_of(b"{", body)
    if max(colons, objects) > PARTS_MAX:
        answer = _answer(body)
        said = [answer.prompt_logprobs, *(part for each in answer.choices for part in _said(each))]
        colons -= sum(count_of(b":", memoryview(each)) for each in said)
        if max(len(answer.choices), colons) > PARTS_MAX:
            raise ValueError(f"it has more than {PARTS_MAX} parts")
    if not body.isascii():
        body.decode()  # for what stays raw nobody looks at
    members = _members(body)
    choices = _choices(members["choices"]) if "choices" in members else []
    if not choices:
        raise ValueError("it has no choices")
    return Parts(members, choices)


def _said(choice: _Choice) -> tuple[msgspec.Raw, ...]:
    return choice.message, choice.text, choice.logprobs, choice.prompt_logprobs
