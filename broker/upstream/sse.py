"""Splits a stream of server-sent events into whole events, wherever the network has cut it.

https://html.spec.whatwg.org/multipage/server-sent-events.html: lines end with LF, CR LF or CR, an
event ends with an empty line. Events stay the raw bytes that came, separators included, to be
passed on as they are.
"""

from __future__ import annotations

import re
from typing import Final

from broker.upstream.faults import malformed

# A CR at the end may be half of a CR LF: it ends nothing until the next byte is there.
_BLANK: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z))(?:\r\n|\n|\r(?!\n|\Z))")
_LONGEST_BLANK: Final = 4


class SseSplitter:
    """Told of bytes as they come, in pieces of any size; keeps the event that is not whole."""

    __slots__ = ("_limit_bytes", "_pending", "_scanned")

    def __init__(self, limit_bytes: int = 1_048_576) -> None:
        self._limit_bytes = limit_bytes
        self._pending = bytearray()
        self._scanned = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the events that `data` completes, in order.

        Raises `AttemptFailed` (MALFORMED) when one event is over the limit, whole or not.
        """
        if self._pending or data.find(b"\r") >= 0:  # `in` is much slower than `find` on bytes
            return self._feed_slowly(data)
        if 0 <= data.find(b"\n\n") == len(data) - 2 < self._limit_bytes:
            return [data]
        parts = data.split(b"\n\n")
        if parts.pop():  # a part of an event, or three LF, of which the last opens the next event
            return self._feed_slowly(data)
        if len(data) > self._limit_bytes and len(max(parts, key=len)) > self._limit_bytes:
            raise malformed(f"an event is over {self._limit_bytes} bytes")
        return [part + b"\n\n" for part in parts]

    @property
    def is_empty(self) -> bool:
        """True when nothing has come of an event that is not whole."""
        return not self._pending

    def rest(self) -> bytes:
        """Return what has come of an event that is not whole; empty at a clean end."""
        return bytes(self._pending)

    def _feed_slowly(self, data: bytes) -> list[bytes]:
        pending = self._pending
        pending += data
        events: list[bytes] = []
        begin = 0
        longest = 0
        for blank in _BLANK.finditer(pending, max(0, self._scanned - _LONGEST_BLANK)):
            end = blank.end()
            events.append(bytes(pending[begin:end]))
            longest = max(longest, end - begin)
            begin = end
        del pending[:begin]
        self._scanned = len(pending)
        if max(longest, len(pending)) > self._limit_bytes:
            raise malformed(f"an event is over {self._limit_bytes} bytes")
        return events


def data_of(event: bytes) -> bytes | None:
    """Return the data of one whole event, its lines joined by LF; None when it has none."""
    if (
        event.startswith(b"data: ")
        and event.find(b"\n") == len(event) - 2
        and event.find(b"\r") < 0
    ):
        return event[6:-2]
    if event.find(b"data") < 0:  # a megabyte of comments would be taken apart for 20 ms
        return None
    values = []
    for line in event.splitlines():
        name, _, value = line.partition(b":")
        if name == b"data":
            values.append(value.removeprefix(b" "))
    return b"\n".join(values) if values else None
