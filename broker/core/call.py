"""One request of a consumer as values: who asks, what is demanded, and the body to be passed on.

Structs and not dataclasses, for they are made for every call. The body keeps its top-level members
as raw slices. What goes upstream is reassembled from the very slices that were priced, so a
repeated member cannot bill one thing and run another.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from uuid import UUID

import msgspec

from broker.core.cascade import Cascade
from broker.core.key_terms import Allowance, Rates
from broker.core.metering import TEMPLATE_TOKENS
from broker.core.requirements import Requirements
from broker.core.wire.images import IMAGE_TOKENS_EXPECTED, IMAGE_TOKENS_MOST
from broker.core.wire.raw_text import text_at_ends
from broker.core.wire.trace_context import TraceContext

BYTES_PER_TOKEN_EXPECTED = 4
IMAGE_BYTES = BYTES_PER_TOKEN_EXPECTED * IMAGE_TOKENS_EXPECTED
"""As so many bytes of text an image counts, however many it has."""
_NAME_CHARACTERS_MAX = 32
"""Longer names of members, which callers choose as they like, are not remembered."""
READ_BYTES_MAX = 262_144
"""Of a member whose text is read whole: 16 MiB of next to nothing, taken apart, are 300 MB and
seconds in which no other call is served."""
ROLE_TOKENS = 8
"""What a chat template adds to a message."""


class Payer(msgspec.Struct, frozen=True, gc=False):
    """Whose money a call spends."""

    account_id: UUID
    key_id: str
    funds: UUID
    rates: Rates | None = None
    """What the key may use in a minute; None is no limit, as for most."""
    allowance: Allowance | None = None
    """What the key's calls may ask for; None is anything."""
    explore: bool | None = None
    """What the key says of all its calls; None: as each says."""


class OpenAiBody(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A JSON request of the OpenAI kind, its members raw."""

    path: bytes
    members: dict[str, msgspec.Raw]
    size_bytes: int
    """Of what may be prompt; each image as IMAGE_BYTES."""
    stream: bool
    usage_asked: bool
    """The caller wants the usage chunk of a stream."""
    choices: int
    images: int = 0

    def render(self, model: str, tokens_out_max: int | None) -> bytes:
        """Return the body for a provider: its name of the model, an output limit in the hold."""
        members = self.members
        parts: list[bytes | msgspec.Raw] = [b'{"model":', msgspec.json.encode(model)]
        replaced = _REPLACED if tokens_out_max is None else _REPLACED_LIMITED
        for name, raw in members.items():
            if name not in replaced:
                parts += (_USUAL.get(name) or _named(name), raw)  # joined uncopied
        if tokens_out_max is not None:
            newer = "max_completion_tokens" in members
            parts.append((_NEWER_LIMIT if newer else _LIMIT) % tokens_out_max)
        if self.stream:
            parts += (b',"stream":true,"stream_options":', self._stream_options())
        parts.append(b"}")
        return b"".join(parts)

    def prompt_text(self) -> str | None:
        """Return all text of the prompt, as far as it is text; None when it cannot be read, or is
        above READ_BYTES_MAX.

        A member that is passed on raw may hold what only the provider can read, such as 1e999.
        """
        for name in ("messages", "prompt", "input"):
            raw = self.members.get(name)
            if raw is not None:
                if memoryview(raw).nbytes > READ_BYTES_MAX:
                    return None
                try:
                    return "".join(_texts(msgspec.json.decode(raw)))
                except (msgspec.DecodeError, RecursionError):
                    return None
        return ""

    def opening_text(self) -> str:
        """Return enough of the prompt's text to tell what it is about; empty when unreadable.

        Of a very long prompt the ends are read: decoding all of it would hold up other calls.
        """
        for name in ("messages", "prompt", "input"):
            raw = self.members.get(name)
            if raw is not None and len(seen := memoryview(raw)) > _READ_WHOLE_BYTES:
                return text_at_ends(seen)
        return self.prompt_text() or ""

    def tokens_beside_text(self) -> int:
        """Return the most tokens that a template makes of what is none of `prompt_text`.

        A few for each message's role; for tools, schemas, tool calls and parts the bytes bound it.
        """
        raws = [self.members[name] for name in _BESIDE_TEXT if name in self.members]
        turns = _turns(self.members.get("messages"))
        for turn in turns:
            raws += (turn.tool_calls, turn.function_call)
            if bytes(turn.content)[:1] == b"[":
                raws.append(turn.content)
        seen = IMAGE_TOKENS_MOST * self.images
        return seen + ROLE_TOKENS * len(turns) + sum(memoryview(raw).nbytes for raw in raws)

    def _stream_options(self) -> bytes:
        raw = self.members.get("stream_options")
        options = _options(raw) if raw is not None else None
        return msgspec.json.encode({**(options or {}), "include_usage": True})


def _named(name: str) -> bytes:
    return _remembered(name) if len(name) <= _NAME_CHARACTERS_MAX else _encoded(name)


def _encoded(name: str) -> bytes:
    return b",%b:" % msgspec.json.encode(name)


_remembered = lru_cache(maxsize=256)(_encoded)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            if name in ("content", "text") or not isinstance(member, str):
                yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


class _Turn(msgspec.Struct):
    """What of a message is no text of its own."""

    content: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()
    function_call: msgspec.Raw = msgspec.Raw()


def _turns(messages: msgspec.Raw | None) -> list[_Turn]:
    try:
        return [] if messages is None else _turns_of(messages)
    except (msgspec.DecodeError, RecursionError):
        return []


_READ_WHOLE_BYTES = 32_768
_BESIDE_TEXT = ("tools", "functions", "response_format")
_turns_of = msgspec.json.Decoder(list[_Turn]).decode
_options = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
_OUTPUT_LIMITS = frozenset({"max_tokens", "max_completion_tokens"})
_REPLACED = frozenset({"model", "broker", "service_tier", "stream", "stream_options"})
_REPLACED_LIMITED = _REPLACED | _OUTPUT_LIMITS
_USUAL = {
    name: _encoded(name)
    for name in ("messages", "prompt", "input", "temperature", "top_p", "stop", "seed", "tools")
}
_LIMIT = b',"max_tokens":%d'
_NEWER_LIMIT = b',"max_completion_tokens":%d'


class TensorBody(msgspec.Struct, frozen=True, eq=False):
    """A KServe v2 request, passed through untouched.

    A large one is `payload` and what follows it, `rest`, and never joined without need.
    """

    headers: tuple[tuple[bytes, bytes], ...]
    payload: bytes
    rest: tuple[memoryview, ...] = ()
    size_bytes: int = 0
    classified: frozenset[str] = frozenset()
    """Outputs of which it asks for the likeliest classes in place of their numbers."""

    def pieces(self) -> bytes | tuple[bytes | memoryview, ...]:
        """Return what is to be sent."""
        return (self.payload, *self.rest) if self.rest else self.payload

    def begin(self, size_bytes: int | None) -> bytes:
        """Return so many of the first bytes, or more; all for None."""
        if not self.rest or (size_bytes is not None and size_bytes <= len(self.payload)):
            return self.payload
        if size_bytes is None:
            return b"".join((self.payload, *self.rest))
        pieces: list[bytes | memoryview] = [self.payload]
        wanted_bytes = size_bytes - len(self.payload)
        for piece in self.rest:
            pieces.append(piece[:wanted_bytes])
            wanted_bytes -= len(pieces[-1])
            if not wanted_bytes:
                break
        return b"".join(pieces)


class Call(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One request, from its admission on; `started_s`, `deadline_s` are on the monotonic clock."""

    id: UUID
    id_text: str
    payer: Payer
    wanted: Requirements
    body: OpenAiBody | TensorBody
    created_at: datetime
    started_s: float
    deadline_s: float
    task_label: str | None = None
    session_id: str | None = None
    labels_json: str | None = None
    cascade: Cascade | None = None
    """How it may be answered more than once; None, as for most: it may not."""
    hedges: bool = False
    """A second endpoint may be asked beside one that is late."""
    continues: bool = False
    """A stream that breaks off may be continued by the next endpoint."""
    trace: TraceContext | None = None
    """None, as mostly: it is not traced."""


def tokens_in_bound(size_bytes: int, images: int = 0) -> int:
    """Return what no tokenizer exceeds for a body of this size: a token is at least a byte, and an
    image, of which IMAGE_BYTES were counted, is IMAGE_TOKENS_MOST at most."""
    return size_bytes + images * (IMAGE_TOKENS_MOST - IMAGE_BYTES) + TEMPLATE_TOKENS


def tokens_in_expected(size_bytes: int) -> int:
    """Return the usual number of tokens of a body of this size."""
    return max(size_bytes // BYTES_PER_TOKEN_EXPECTED, 1)
