"""What callers are told whose requests reach no door: in plain words, and for the last time."""

from __future__ import annotations

from typing import Final

_SAID: Final = {
    400: (b"Bad Request", b"This is not a request that HTTP/1.1 knows."),
    408: (b"Request Timeout", b"The request did not come in time."),
    413: (b"Content Too Large", b"The body of the request is too large."),
    431: (b"Request Header Fields Too Large", b"The head of the request is too large."),
    503: (b"Service Unavailable", b"The broker has no room for another connection."),
}


def refusal(status: int) -> bytes:
    """Return the whole answer to who is told no more than `status`, and then closed upon."""
    reason, body = _SAID[status]
    again = b"retry-after: 1\r\n" if status == 503 else b""
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\n%bconnection: close\r\n"
        b"content-length: %d\r\n\r\n%b" % (status, reason, again, len(body), body)
    )
