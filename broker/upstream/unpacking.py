"""Unpacks compressed answers where the broker must read them, never beyond a bound.

Providers are asked not to compress what is metered; some do it all the same. A few bytes may unpack
to any number, so every step has its limit (a "zip bomb" fails as TOO_LARGE).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final

from broker.core.outcome import Fault, Outcome
from broker.upstream.faults import AttemptFailed, malformed
from broker.upstream.hoard import FREE_BYTES
from broker.upstream.response import Response

_GZIP: Final = 31
_ZLIB: Final = 15
_RAW: Final = -15
_GZIP_NAMES: Final = (b"gzip", b"x-gzip")
_PLAIN: Final = (b"", b"identity")
STEP_BYTES_MAX: Final = 4_194_304
"""What one piece of a stream may unpack to."""

PACKED_BYTES: Final = 4_096
"""What has more is unpacked beside the calls: 30 MiB held all others up for 0.2 s."""
_JOINED_BYTES: Final = 4_194_304
"""What has more is joined beside the calls: 60 MiB held all others up for 20 ms."""
ENCODING: Final = b"content-encoding"
_RATIO_MAX: Final = 50
"""No text packs better. Without it, a few kilobytes would keep the loop busy up to the limit."""


class Unpacker:
    """Told of a body's bytes as they come; `encoding` is the value of its `Content-Encoding`."""

    def __init__(self, encoding: bytes, limit_bytes: int) -> None:
        """Raises AttemptFailed (MALFORMED) for an encoding that nobody asked for or knows."""
        self._encoding = encoding.strip().lower()
        if self._encoding not in (*_GZIP_NAMES, b"deflate"):
            raise malformed(f"the answer is encoded with {encoding[:40]!r}", 200)
        self._left_bytes = limit_bytes
        self._inflater: Any = None

    def feed(self, data: bytes, step_bytes_max: int = STEP_BYTES_MAX) -> bytes:
        """Return what `data` unpacks to. Raises AttemptFailed (MALFORMED, TOO_LARGE)."""
        if not data:
            return b""
        if self._inflater is None:
            self._inflater = zlib.decompressobj(self._window_bits(data))
        room = min(self._left_bytes, step_bytes_max)
        try:
            plain: bytes = self._inflater.decompress(data, room + 1)
        except zlib.error as error:
            raise malformed(f"the answer does not unpack: {error}", 200) from error
        if len(plain) > room:
            detail = f"the answer unpacks to more than {room} bytes"
            raise AttemptFailed(Outcome(Fault.TOO_LARGE, status=200, detail=detail))
        if self._inflater.unused_data:
            raise malformed("bytes behind a compressed answer", 200)
        self._left_bytes -= len(plain)
        return plain

    def finish(self) -> None:
        """Be told that this was all. Raises AttemptFailed when it was not."""
        if self._inflater is not None and not self._inflater.eof:
            raise malformed("a compressed answer without its end", 200)

    def _window_bits(self, begin: bytes) -> int:
        if self._encoding != b"deflate":
            return _GZIP
        # RFC 9110 wants zlib's format; some send the bare stream that is in it.
        is_zlib = begin[0] & 0x0F == 8 and int.from_bytes(begin[:2], "big") % 31 == 0
        return _ZLIB if is_zlib or begin == b"\x78" else _RAW


def unpacker_for(encoding: bytes | None, limit_bytes: int) -> Unpacker | None:
    """Return what unpacks a body of this `Content-Encoding`, None where there is nothing to do."""
    if encoding is None or encoding.strip().lower() in _PLAIN:
        return None
    return Unpacker(encoding, limit_bytes)


def unpacked(encoding: bytes | None, body: bytes, limit_bytes: int) -> bytes:
    """Return a whole body as it was before it was compressed. Raises AttemptFailed."""
    unpacker = unpacker_for(encoding, limit_bytes)
    if unpacker is None:
        return body
    plain = unpacker.feed(body, STEP_BYTES_MAX + _RATIO_MAX * len(body))
    unpacker.finish()
    return plain


async def put_together(response: Response, limit_bytes: int, keep: Callable[[int], object]) -> None:
    """Have a long answer that has come whole in one piece, and as it was before it was compressed,
    if it was: both beside the calls. Raises AttemptFailed."""
    encoding = response.header(ENCODING)
    if encoding is None or response.status != 200:
        if response.buffered > _JOINED_BYTES:
            response.chunks = [await asyncio.to_thread(b"".join, response.chunks)]
        return
    body = response.take(limit_bytes)
    plain = await asyncio.to_thread(unpacked, encoding, body, limit_bytes)
    if len(plain) > FREE_BYTES:
        response.kept = keep(len(plain))
    response.chunks, response.buffered = [plain], len(plain)
    response.headers = [each for each in response.headers if each[0] != ENCODING]
