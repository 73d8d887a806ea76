"""Refuses large answers that are made of next to nothing, before they are taken apart.

`[{},{},...` is three bytes an object and takes twenty times that: 64 MiB of it would hold the loop
for seconds and take a gigabyte. Answers that are large by their texts and numbers stay as they are.
"""

from __future__ import annotations

from typing import Final

import msgspec

from broker.upstream.faults import UNREADABLE, malformed

LARGE_BYTES: Final = 1 << 20
CHOICES_MAX: Final = 128
"""As many as can be asked for."""
VECTORS_MAX: Final = 65_536


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = msgspec.Raw(b"null")
    tool_calls: msgspec.Raw = msgspec.Raw(b"null")
    function_call: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def parts_bytes(self) -> int:
        """Of all that is more than a text."""
        content = memoryview(self.content)
        texts = bytes(content[:1]) == b'"'
        told = memoryview(self.tool_calls).nbytes + memoryview(self.function_call).nbytes
        return told + (0 if texts else content.nbytes)


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    delta: _Message | None = None


# A list would be made whole before its length is looked at.
_Choices: Final = msgspec.defstruct(
    "_Choices",
    [(f"choice{number}", _Choice | None, None) for number in range(CHOICES_MAX)],
    array_like=True,
    forbid_unknown_fields=True,
    gc=False,
)


class _Answer(msgspec.Struct, gc=False):
    choices: _Choices | None = None  # type: ignore[valid-type]  # made above
    error: msgspec.Raw = msgspec.Raw(b"null")


_answer: Final = msgspec.json.Decoder(_Answer).decode


def require_substance(body: bytes) -> None:
    """Raise AttemptFailed (MALFORMED) for a large answer of more choices than can be asked for, or
    with more than LARGE_BYTES that are no text where texts belong; and for one that is none."""
    if len(body) <= LARGE_BYTES:
        return
    try:
        answer = _answer(body)
    except UNREADABLE as error:
        raise malformed(f"not an OpenAI answer: {error}", 200) from error
    choices: tuple[_Choice | None, ...] = ()
    if answer.choices is not None:
        choices = msgspec.structs.astuple(answer.choices)
    said = [each for choice in choices if choice for each in (choice.message, choice.delta) if each]
    parts_bytes = sum(each.parts_bytes for each in said) + memoryview(answer.error).nbytes
    if parts_bytes > LARGE_BYTES:
        raise malformed("an answer with more parts than text", 200)


def require_few_vectors(body: bytes) -> None:
    """Raise AttemptFailed (MALFORMED) for a large answer of more than VECTORS_MAX embeddings."""
    if len(body) > LARGE_BYTES and body.count(b"{") > VECTORS_MAX:
        raise malformed(f"more than {VECTORS_MAX} embeddings", 200)
