"""Refuses large answers that are made of next to nothing, before they are taken apart, and reads
what others leave raw.

`[{},{},...` is three bytes an object and takes twenty times that: 64 MiB of it would hold the loop
for seconds and take a gigabyte. Answers that are large by their texts and numbers stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeVar

import msgspec

from broker.core.wire.counting import count_of
from broker.upstream.faults import UNREADABLE, malformed

LARGE_BYTES: Final = 1 << 20
DENSE_BYTES: Final = 1 << 16
"""So much is taken apart whatever it is made of: that takes milliseconds."""
CHOICES_MAX: Final = 2_048
"""As many as there may be prompts in a long list."""
PARTS_MAX: Final = 1_024
"""Of what an answer says in parts, and of its tool calls."""
VECTORS_MAX: Final = 65_536
NULL: Final = msgspec.Raw(b"null")
_EXACT_BYTES_MAX: Final = 65_536
"""Longer arguments that are no string count as they are written, but for space between their parts,
and longer errors are not read: a megabyte of empty lists, taken apart, holds the loop for 0.3 s."""
LONG_ERROR: Final = "an error of many words"
_ERROR_WITHIN_BYTES: Final = 64
_ERROR_FIRST: Final = re.compile(rb'\s*\{\s*"error"\s*:\s*[^\sn]')
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

    @property
    def parts(self) -> int:
        """How many they are. Raises what msgspec raises, also where one list has too many."""
        return sum(map(_length, (self.content, self.tool_calls)))


class _Choice(msgspec.Struct, gc=False):
    message: _Message | None = None
    delta: _Message | None = None


def _several(kind: Any, default: object, count: int) -> type[msgspec.Struct]:
    """Return a list of at most so many: one of another type would be made whole before its length
    is looked at."""
    fields = [(f"part{number}", kind, default) for number in range(count)]
    return msgspec.defstruct(
        "_Several", fields, array_like=True, forbid_unknown_fields=True, gc=False
    )


# They take a megabyte together, and are made when somebody brings something dense.
@cache
def _answer() -> Callable[[bytes], Any]:
    choices = _several(_Choice | None, None, CHOICES_MAX)
    fields = [("choices", choices | None, None), ("error", msgspec.Raw, NULL)]
    return msgspec.json.Decoder(msgspec.defstruct("_Answer", fields, gc=False)).decode


@cache
def _parts() -> Callable[[msgspec.Raw], msgspec.Struct]:
    return msgspec.json.Decoder(_several(msgspec.Raw, NULL, PARTS_MAX)).decode


def _length(raw: msgspec.Raw) -> int:
    if bytes(memoryview(raw)[:1]) != b"[":
        return 0
    return PARTS_MAX - msgspec.structs.astuple(_parts()(raw)).count(NULL)


def require_substance(body: bytes) -> None:
    """Raise AttemptFailed (MALFORMED) for an answer, or an event of one, above DENSE_BYTES that has
    more choices than CHOICES_MAX, or more parts than PARTS_MAX; for one with more than LARGE_BYTES
    that are no text where texts belong; and for one that is none."""
    if len(body) <= DENSE_BYTES:
        return
    try:
        answer = _answer()(body)
        told = msgspec.structs.astuple(answer.choices) if answer.choices is not None else ()
        said = [
            each for choice in told if choice for each in (choice.message, choice.delta) if each
        ]
        parts_bytes = sum(each.parts_bytes for each in said) + memoryview(answer.error).nbytes
        parts = sum(each.parts for each in said) if parts_bytes > DENSE_BYTES else 0
    except UNREADABLE as error:
        raise malformed(f"not an OpenAI answer: {error}", 200) from error
    if parts_bytes > LARGE_BYTES or parts > PARTS_MAX:
        raise malformed("an answer with more parts than text", 200)


def begins_with_error(body: bytes) -> bool:
    """True for a large answer that is an error, as far as its first bytes tell: it stands alone,
    so it stands first, and to look for its end takes long."""
    return len(body) > LARGE_BYTES and _ERROR_FIRST.match(body[:_ERROR_WITHIN_BYTES]) is not None


def require_few_vectors(body: bytes) -> None:
    """Raise AttemptFailed (MALFORMED) for a large answer of more than VECTORS_MAX embeddings."""
    if len(body) > LARGE_BYTES and count_of(b"{", body) > VECTORS_MAX:
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
        return LONG_ERROR
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
