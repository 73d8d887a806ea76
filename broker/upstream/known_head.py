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

Headers = list[tuple[bytes, bytes]]


class KnownHead(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A head, cut at the digits of its `Content-Length`."""

    before: bytes
    digits: bytes
    after: bytes
    fixed_bytes: int
    """Of the head without the digits."""

    def match(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Return digits and body of a message that has this head and came whole, with nothing
        beside; None: let it be parsed."""
        # How much came tells the length that the head must say, so there is no number to be found
        # and read: half the steps. Just below 10, 100, 1,000 ... it tells one too short, and the
        # parser sees to it.
        rest = len(data) - self.fixed_bytes
        length = rest - len(b"%d" % rest)
        digits = b"%d" % length
        head = self.before + digits + self.after
        if not data.startswith(head):
            return None
        body = data[len(head) :]
        return (digits, body) if len(body) == length else None


Known = tuple[KnownHead, Headers]
"""With all headers of the message that it is of."""


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
    return KnownHead(head[:begin], digits, head[stop:], len(head) - len(digits))


def with_length(headers: Headers, digits: bytes) -> Headers:
    """Return headers with another `Content-Length`."""
    return [(name, digits if name == b"content-length" else value) for name, value in headers]
