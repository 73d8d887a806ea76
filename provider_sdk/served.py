"""Watches one call pass the front and tells what was served: tokens as the answer counts them.

Nothing is held up: bytes are counted as they pass, and what is needed of the answer (all of a JSON
body up to a limit, the tail of a stream) is read after its end.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote
from uuid import UUID

import msgspec

from provider_sdk.exchange import Exchange

JSON_BYTES_MAX: Final = 1 << 20
"""An answer longer than this is known by its bytes only."""
TAIL_BYTES: Final = 64 * 1024
"""Of a stream: its usage comes with one of the last events."""
_COUNT_MAX: Final = 2**53
_STATUSES: Final = range(100, 600)
_MODEL_PATH: Final = re.compile(r"/v2/models/([^/]+)(?:/.*)?")


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one attempt of a call; times are Unix time in ms."""

    call_id: str
    attempt: int
    model: str
    status: int | None
    whole: bool
    tokens_in: int | None
    tokens_out: int | None
    bytes_in: int
    bytes_out: int
    started_at_ms: int
    first_byte_at_ms: int | None
    ended_at_ms: int


class _Answer(msgspec.Struct):
    """What is wanted of an answer or chunk; its usage may be anything."""

    model: Any = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


class Watch:
    """Told what passes; says at the end what was served."""

    def __init__(self, exchange: Exchange, path: str) -> None:
        self._call_id, self._attempt = _identity(exchange)
        self._path = path
        self._status: int | None = None
        self._streams = False
        self._readable = False
        self._kept = bytearray()
        self._bytes_in = 0
        self._bytes_out = 0
        self._whole = False
        self._started_at_ms = time.time_ns() // 1_000_000
        # by the monotonic clock from here on, so that no correction of the clock bends a duration
        self._started_s = time.monotonic()
        self._first_byte_s: float | None = None

    @property
    def is_brokered(self) -> bool:
        """Whether a broker sent the call, by its headers; nothing is kept of anybody else's."""
        return self._call_id is not None

    def asked(self, data: bytes) -> None:
        """A piece of the request's body passed."""
        self._bytes_in += len(data)

    def answered(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the answer passed."""
        self._status = status if status in _STATUSES else None
        by_name = dict(headers)
        kind = by_name.get(b"content-type", b"")
        self._streams = kind.startswith(b"text/event-stream")
        is_json = kind.partition(b";")[0].strip().endswith(b"json")
        plain = by_name.get(b"content-encoding", b"identity") == b"identity"
        self._readable = self.is_brokered and plain and (self._streams or is_json)

    def passed(self, data: bytes) -> None:
        """A piece of the answer's body was handed over."""
        if self._first_byte_s is None:
            self._first_byte_s = time.monotonic()
        self._bytes_out += len(data)
        if not self._readable:
            return
        self._kept += data
        if self._streams and len(self._kept) > 2 * TAIL_BYTES:
            del self._kept[:-TAIL_BYTES]
        elif not self._streams and len(self._kept) > JSON_BYTES_MAX:
            self._readable = False
            self._kept.clear()

    def finished(self) -> None:
        """The answer was handed over to its end."""
        self._whole = True

    def end(self) -> Served:
        """What was served of a call that a broker sent."""
        assert self._call_id is not None
        answer = self._answer()
        tokens_in, tokens_out = _counts(answer.usage)
        return Served(
            call_id=self._call_id,
            attempt=self._attempt,
            model=self._model(answer),
            status=self._status,
            whole=self._whole,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out,
            started_at_ms=self._started_at_ms,
            first_byte_at_ms=self._ms(self._first_byte_s),
            ended_at_ms=self._started_at_ms + self._since_ms(time.monotonic()),
        )

    def _ms(self, at_s: float | None) -> int | None:
        return None if at_s is None else self._started_at_ms + self._since_ms(at_s)

    def _since_ms(self, at_s: float) -> int:
        return round((at_s - self._started_s) * 1_000)

    def _model(self, answer: _Answer) -> str:
        if isinstance(answer.model, str):
            return answer.model[:200]
        named = _MODEL_PATH.fullmatch(self._path)
        return unquote(named[1])[:200] if named is not None else ""

    def _answer(self) -> _Answer:
        if not self._readable or self._status != 200:
            return _Answer()
        if not self._streams:
            return _decoded(bytes(self._kept))
        last = _Answer()
        for line in reversed(self._kept.splitlines()):
            name, _colon, data = line.partition(b":")
            if name != b"data":
                continue
            chunk = _decoded(bytes(data))
            if chunk.usage is not None:
                return chunk
            last = last if last.model is not None else chunk
        return last


def _identity(exchange: Exchange) -> tuple[str | None, int]:
    """The call's id and the number of the attempt, as a broker's headers tell them."""
    call_id, attempt = exchange.header("x-request-id"), exchange.header("x-broker-attempt")
    if not (attempt.isascii() and attempt.isdigit() and len(attempt) < 5):
        return None, 0
    try:
        return str(UUID(call_id)), int(attempt)
    except ValueError:
        return None, 0


def _decoded(data: bytes) -> _Answer:
    """The answer in some JSON; one that says nothing for what is none (a cut end, `[DONE]`)."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Answer()


def _counts(usage: object) -> tuple[int | None, int | None]:
    """Tokens in and out, by whichever names."""
    if not isinstance(usage, dict):
        return None, None
    return (
        _count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        _count(usage.get("completion_tokens", usage.get("output_tokens"))),
    )


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _COUNT_MAX
    return value if is_count else None  # type: ignore[return-value]  # is_count says that it is one
