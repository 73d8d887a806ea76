"""What the broker must know of KServe v2 with Triton's binary tensors: refusals, errors in a 200.

A body is JSON, or with `Inference-Header-Content-Length: n` n bytes of JSON and then raw tensors.
The broker reads that JSON only for what would reach into a provider's host, shared memory regions,
and for what may end its server: Triton dies of being asked for the classes of texts.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from broker.core.call import TensorBody
from broker.errors import BodyTooLarge, NotAllowed, RequestMalformed
from broker.upstream.faults import UNREADABLE, malformed
from broker.upstream.large_answers import NULL, error_text, is_told

DENIED_PATHS: Final = (
    "/v2/repository",
    "/v2/systemsharedmemory",
    "/v2/cudasharedmemory",
    "/v2/xpusharedmemory",
    "/v2/trace",
    "/v2/logging",
)
"""Everything at or below these is refused, and the trace settings of a model too."""

HEADER_LENGTH: Final = b"inference-header-content-length"
_INFLATED_BYTES_MAX: Final = 67_108_864
"""A tenth of a second's work."""
LOOKED_INTO_BYTES_MAX: Final = 262_144
"""Of JSON that is taken apart; of the longer, which holds its tensors, the outputs alone are."""
_ID_WITHIN_BYTES: Final = 256
_DENIED_IN_MODEL: Final = re.compile(r"/(?:trace/setting|load|unload)(?:/|$)")
_SPELT: Final = re.compile(rb"\\u00(?:5f|6[1-9a-f]|7[0-9a])", re.IGNORECASE)
"""An escape of what names are written in here, which needs none: another letter spells neither."""
_ESCAPE_BYTES: Final = len(b"\\u005f")
_SPELT_WITHIN: Final = 1 << 20
_SLASHES: Final = re.compile(r"/{2,}")
_WINDOW_BITS: Final = {b"gzip": 31, b"deflate": 47}


class _Failure(msgspec.Struct):
    error: msgspec.Raw = NULL


class _Outputs(msgspec.Struct):
    outputs: msgspec.Raw = msgspec.Raw(b"null")


class _Named(msgspec.Struct):
    id: str | None = None


class InferFacts(msgspec.Struct, frozen=True):
    """Facts of a 200 answer: the error that it is after all, and the size of its JSON."""

    error: str | None
    json_bytes: int


def is_denied(path: str) -> bool:
    """True for paths that manage a server's models, memory, traces or logs."""
    plain = _SLASHES.sub("/", unquote(path))
    if "/../" in f"{plain}/" or "/./" in f"{plain}/":
        return True
    for denied in DENIED_PATHS:
        if plain == denied or plain.startswith(f"{denied}/"):
            return True
    return plain.startswith("/v2/models/") and _DENIED_IN_MODEL.search(plain) is not None


class _Object(list[tuple[str, Any]]):
    """The members of a JSON object, all of them: parsers differ on which of two equal keys they
    believe."""

    def each(self, key: str) -> Iterator[Any]:
        """Yield what is told under a key, and of a list each element."""
        for name, value in self:
            if name == key:
                yield from value if type(value) is list else (value,)


def check_infer(body: TensorBody) -> frozenset[str]:
    """Check the JSON of an infer request, its header names in lower case; return the outputs of
    which it asks for classes.

    Raises `RequestMalformed` for a header length that cannot be and for unknown encodings,
    `NotAllowed` for shared memory, `BodyTooLarge` for a body that inflates without bounds.
    """
    headers = body.headers
    lengths = [value for name, value in headers if name == HEADER_LENGTH]
    encodings = [value for name, value in headers if name == b"content-encoding"]
    if len(lengths) > 1 or len(encodings) > 1:
        raise RequestMalformed("a header that must be single stands twice")
    needed = check_header_length(lengths[0]) if lengths else None
    if encodings and encodings[0].strip().lower() != b"identity":
        payload = _inflated(body.begin(None), encodings[0].strip().lower(), needed)
    else:
        payload = body.begin(needed)
    if needed is not None:
        if needed > len(payload):
            # tritonclient writes it into the headers that it is given, and never takes it out.
            raise RequestMalformed(
                "Inference-Header-Content-Length is over the length of the body: is it left from "
                "another call in headers that are used again?"
            )
        payload = payload[:needed]
    return _look_into(payload)


def check_header_length(value: bytes) -> int:
    """Return the length of the JSON in bytes. Raises `RequestMalformed`."""
    if not value.isdigit() or len(value) > 12:
        raise RequestMalformed("Inference-Header-Content-Length is no number of bytes")
    return int(value)


def _look_into(header_json: bytes) -> frozenset[str]:
    """Return the outputs of which the JSON of a request asks for the likeliest classes in place of
    their numbers. Raises `NotAllowed` when it names a shared memory region, `RequestMalformed`.

    Only JSON that has the words, or an escape that could spell them, is parsed.
    """
    find = header_json.find  # `in` takes half as long again on bytes
    escapes = find(b"\\u") >= 0 and _spells(header_json)
    shares = escapes or find(b"shared_memory") >= 0
    if not shares and find(b"classification") < 0:
        return frozenset()
    if len(header_json) > LOOKED_INTO_BYTES_MAX:
        header_json = _outputs_alone(header_json, may_share=shares)
    try:
        request = json.loads(header_json, object_pairs_hook=_read_object)
    except (ValueError, RecursionError) as error:
        raise RequestMalformed("the JSON of the request cannot be read") from error
    outputs = request.each("outputs") if isinstance(request, _Object) else ()
    return frozenset(
        name
        for output in outputs
        if isinstance(output, _Object) and _asks_for_classes(output)
        for name in output.each("name")
        if isinstance(name, str)
    )


def _spells(header_json: bytes) -> bool:
    """True where an escape could spell a name. It is looked for in steps: of a compressed body that
    is done beside the calls, which go on between two."""
    steps = range(0, len(header_json), _SPELT_WITHIN)
    search, beyond = _SPELT.search, _SPELT_WITHIN + _ESCAPE_BYTES - 1
    return any(search(header_json, begin, begin + beyond) for begin in steps)


def _outputs_alone(header_json: bytes, *, may_share: bool) -> bytes:
    """Return the JSON of a request without its tensors: taken apart, those of 16 MiB would hold all
    other calls up for seconds. Raises `NotAllowed`, `RequestMalformed` where that does not tell."""
    if may_share:
        raise NotAllowed(
            "Shared memory regions are not served. JSON above "
            f"{LOOKED_INTO_BYTES_MAX} bytes may not speak of them, nor escape plain letters: send "
            "its tensors as binary data.",
            code="shared_memory_denied",
        )
    if header_json.count(b'"outputs"') > 1:
        raise RequestMalformed(
            f"JSON above {LOOKED_INTO_BYTES_MAX} bytes that asks for classes names 'outputs' once"
        )
    try:
        outputs = memoryview(msgspec.json.decode(header_json, type=_Outputs).outputs)
    except UNREADABLE as error:
        raise RequestMalformed("the JSON of the request cannot be read") from error
    if outputs.nbytes > LOOKED_INTO_BYTES_MAX:
        raise RequestMalformed(f"the outputs take more than {LOOKED_INTO_BYTES_MAX} bytes")
    return b'{"outputs":%b}' % bytes(outputs)


def _asks_for_classes(output: _Object) -> bool:
    told = [each for each in output.each("parameters") if isinstance(each, _Object)]
    return any(count for each in told for count in each.each("classification"))


def request_id(header_length: bytes | None, body: bytes) -> str | None:
    """Return the id of a request that was checked, None where it has none."""
    if body.find(b'"id"', 0, _ID_WITHIN_BYTES) < 0:  # clients put it first
        return None
    length = len(body) if header_length is None else int(header_length)
    try:
        return msgspec.json.decode(memoryview(body)[:length], type=_Named).id
    except UNREADABLE:
        return None  # not as it is told; the provider will say what it makes of it


def read_infer(header_length: bytes | None, body: bytes, asked_id: str | None = None) -> InferFacts:
    """Return the facts of a 200 answer; `header_length` is the value of its header, if it has one.

    Raises `AttemptFailed` (MALFORMED) for an empty answer, a length that cannot be, or an answer to
    another request than `asked_id`.
    """
    if not body:
        raise malformed("an empty answer", 200)
    json_bytes = len(body)
    if header_length is not None:
        digits = header_length if header_length.isdigit() and len(header_length) <= 12 else b"0"
        if not 0 < int(digits) <= len(body):
            raise malformed("the header length of the answer cannot be", 200)
        json_bytes = int(digits)
    error = None
    if b'"error"' in body[: min(json_bytes, 64)]:  # it stands alone, so it stands first
        error = _error_of(body[:json_bytes])
    if asked_id is not None and error is None:
        told_id = request_id(b"%d" % json_bytes, body)
        if told_id is not None and told_id != asked_id:
            raise malformed("the answer to another request", 200)
    return InferFacts(error, json_bytes)


def _error_of(body: bytes) -> str | None:
    try:
        error = msgspec.json.decode(body, type=_Failure).error
    except UNREADABLE as failure:
        raise malformed(f"not a KServe answer: {failure}", 200) from failure
    return error_text(error) if is_told(error) else None


def _read_object(pairs: list[tuple[str, Any]]) -> _Object:
    for key, _ in pairs:
        if key.startswith("shared_memory"):
            raise NotAllowed("Shared memory regions are not served.", code="shared_memory_denied")
    return _Object(pairs)


def _inflated(payload: bytes, encoding: bytes, needed: int | None) -> bytes:
    """Return the first `needed` bytes of a compressed body, all of it when None."""
    window_bits = _WINDOW_BITS.get(encoding)
    if window_bits is None:
        raise RequestMalformed("the body must be encoded with gzip, deflate, or not at all")
    limit = _INFLATED_BYTES_MAX if needed is None else min(needed, _INFLATED_BYTES_MAX)
    inflater = zlib.decompressobj(window_bits)
    try:
        plain = inflater.decompress(payload, limit + 1)
    except zlib.error as error:
        raise RequestMalformed(f"the body is not {encoding.decode()}") from error
    if needed is None and len(plain) > limit:
        raise BodyTooLarge(f"the body inflates to more than {limit} bytes")
    return plain
