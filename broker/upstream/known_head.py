"""Remembers the head of a connection's last message: often only the length changes till the next.

Comparing a head with the last one takes a tenth of the time that parsing it takes, and can read
nothing into it that the parser has not read: but for the digits of `Content-Length` the bytes are
the same. Whatever else comes goes to the parser.
"""

from __future__ import annotations

from typing import Final

import msgspec

TRIED: Final = 3
"""Where so many heads in a row were unlike the last one, no more are remembered."""
_HEAD_BYTES_MAX: Final = 4_096
_LENGTH: Final = b"\r\ncontent-length:"
_DIGITS_MAX: Final = 10

Headers = list[tuple[bytes, bytes]]


class KnownHead(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A head, cut at the digits of its `Content-Length`."""

    before: bytes
    digits: bytes
    after: bytes

    def match(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return digits and body of a message that has this head and came whole, with nothing
        beside; None: let it be parsed."""
        before = self.before
        if not data.startswith(before):
            return None
        begin = len(before)
        stop = data.find(b"\r", begin, begin + _DIGITS_MAX + 1)
        digits = data[begin:stop]
        if not (digits.isdigit() and data.startswith(self.after, stop)):
            return None
        body = data[stop + len(self.after) :]
        return (digits, body) if len(body) == int(digits) else None


def cut(data: bytes, digits: bytes | None) -> KnownHead | None:
    """Return the head of a message that was parsed from `data`, with the only `Content-Length` that
    it has; None unless `data` are all of it, and nothing else."""
    end = data.find(b"\r\n\r\n") + 4
    if digits is None or end > _HEAD_BYTES_MAX:
        return None
    head = data[:end]
    begin = head.lower().find(_LENGTH)
    if begin < 0:
        return None
    begin += len(_LENGTH)
    stop = head.find(b"\r", begin)
    begin = stop - len(head[begin:stop].lstrip(b" "))
    if head[begin:stop] != digits or not digits.isdigit() or len(data) - end != int(digits):
        return None
    return KnownHead(head[:begin], digits, head[stop:])


def with_length(headers: Headers, digits: bytes) -> Headers:
    """Return headers with another `Content-Length`."""
    return [(name, digits if name == b"content-length" else value) for name, value in headers]
