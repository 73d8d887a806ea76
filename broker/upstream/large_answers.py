"""Refuses large answers that are made of next to nothing, before they are taken apart, and reads
what others leave raw.

`[{},{},...` is three bytes an object and takes twenty times that: 64 MiB of it would hold the loop
for seconds and take a gigabyte. Answers that are large by their texts and numbers stay as they are.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec

from broker.upstream.faults import UNREADABLE, malformed

LARGE_BYTES: Final = 1 << 20
CHOICES_MAX: Final = 128
"""As many as can be asked for."""
VECTORS_MAX: Final = 65_536
NULL: Final = msgspec.Raw(b"null")
_EXACT_BYTES_MAX: Final = 65_536
"""Longer arguments that are no string count as they are written, but for space between their parts,
and longer errors are not read: a megabyte of empty lists, taken apart, holds the loop for 0.3 s."""
T = TypeVar("T")


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


_ANY: Final = msgspec.json.Decoder(Any)
_STRING: Final = msgspec.json.Decoder(str)


def is_told(raw: msgspec.Raw) -> bool:
    """True where a member is there and not null."""
    return raw is not NULL and bytes(memoryview(raw)[:5]) != b"null"


def string_in(raw: msgspec.Raw) -> str:
    """Return what a string says; nothing for any other JSON. Raises AttemptFailed."""
    return _within(_STRING, raw) if bytes(memoryview(raw)[:1]) == b'"' else ""


def size_of_arguments(raw: msgspec.Raw) -> int:
    """Return the UTF-8 bytes of a call's arguments: a string of JSON by the book, an object from
    some servers. Raises AttemptFailed."""
    if not is_told(raw):
        return 0
    if bytes(memoryview(raw)[:1]) == b'"':
        return len(string_in(raw).encode())
    if memoryview(raw).nbytes <= _EXACT_BYTES_MAX:
        return len(msgspec.json.encode(_within(_ANY, raw)))
    return len(msgspec.json.format(raw, indent=-1))


def error_text(raw: msgspec.Raw) -> str:
    """Return what an error object or string says, cut to 200 characters. Raises AttemptFailed."""
    if memoryview(raw).nbytes > _EXACT_BYTES_MAX:
        return "an error of many words"
    error = _within(_ANY, raw)
    if isinstance(error, dict):
        error = error.get("message") or error
    text = error if isinstance(error, str) else msgspec.json.encode(error).decode()
    return text[:200] or "an error without words"


def _within(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T:
    """Read what an answer that has been decoded holds raw."""
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        raise malformed(f"not an OpenAI answer: {error}", 200) from error
