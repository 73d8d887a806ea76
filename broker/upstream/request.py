"""What is asked of whom and for how long: origins, request heads, timeouts and limits as values."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from broker.errors import RequestMalformed

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST: Final = re.compile(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_FRAMING: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"expect"}
)


Body = bytes | Sequence[bytes | memoryview]
"""What is sent behind a head: in one piece, or in several, which are not joined."""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Scheme, host and port: what connections are pooled by."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> tuple[Origin, str]:
        """Split `url` into its origin and its path prefix, which has no trailing slash.

        Raises `RequestMalformed` for other schemes, user info, a query, a fragment, or a bad host
        or port.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode("ascii").lower()
        except ValueError as error:  # UnicodeError is one of these
            raise RequestMalformed(f"the URL cannot be read: {error}") from error
        if parts.scheme not in _DEFAULT_PORTS:
            raise RequestMalformed("the URL must begin with http:// or https://")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise RequestMalformed("the URL must have no user info, query or fragment")
        if _HOST.fullmatch(host) is None or port == 0:
            raise RequestMalformed("the URL has no usable host and port")
        if not parts.path.isascii() or not parts.path.isprintable() or " " in parts.path:
            raise RequestMalformed("the path of the URL must be printable ASCII")
        # One text for all endpoints of a host: each is kept with how it is addressed.
        scheme, host = sys.intern(parts.scheme), sys.intern(host)
        return cls(scheme, host, port or _DEFAULT_PORTS[scheme]), parts.path.rstrip("/")

    @property
    def authority(self) -> bytes:
        """The value of the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if self.port == _DEFAULT_PORTS.get(self.scheme):
            return host.encode()
        return f"{host}:{self.port}".encode()


class Timeouts(msgspec.Struct, frozen=True, gc=False):
    """How long one attempt may take, in seconds.

    `first_byte_s` runs from the request to the end of the response head, `idle_s` between two
    arrivals of body bytes while somebody takes them, `total_s` over everything, connecting
    included.
    """

    connect_s: float = 5.0
    first_byte_s: float = 60.0
    idle_s: float = 60.0
    total_s: float = 600.0


class Limits(msgspec.Struct, frozen=True):
    """The bounds of every buffer and queue of the client."""

    connections_per_origin: int = 1_024
    """A guard alone: how much a provider takes is for its capacity and its learned limit to say."""
    waiting_per_origin: int = 1024
    """Calls that may wait for a connection, for at most their `connect_s`; more are refused."""
    idle_s: float = 4.0
    """Idle connections are dropped after this; llama.cpp closes its side after 5 s."""
    head_bytes: int = 32_768
    body_bytes: int = 33_554_432
    """What `Response.read` takes when it is not told otherwise."""
    wholes_bytes: int = 2**28
    """Of all answers together that are kept whole, half of them of one origin at most."""
    high_water_bytes: int = 262_144
    """Body bytes that nobody has taken yet, over which the provider is made to wait."""


def head_prefix(
    method: bytes, target: bytes, host: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """Return a request head without its end, to be kept and completed by `sized` for each call.

    Raises `RequestMalformed` when a part could be read as more than itself (request smuggling), or
    when a header is one that only the client may set.
    """
    for name, _ in headers:
        if _TOKEN.fullmatch(name) is None or name.lower() in _FRAMING:
            raise RequestMalformed("a header of this name cannot be sent to a provider")
    if b" " in target or not target.startswith(b"/") or _TOKEN.fullmatch(method) is None:
        raise RequestMalformed("the path cannot be sent to a provider")
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, target, host)]
    lines += [b"%b: %b\r\n" % (name.lower(), value) for name, value in headers]
    head = b"".join(lines)
    breaks = len(headers) + 2
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise RequestMalformed("a header or the path holds a line break or a NUL")
    return head


def sized(prefix: bytes, content_length: int | None) -> bytes:
    """Complete a `head_prefix`; `content_length` in bytes, None for a request without a body."""
    if content_length is None:
        return prefix + b"\r\n"
    return b"%bcontent-length: %d\r\n\r\n" % (prefix, content_length)


def request_head(
    method: bytes,
    target: bytes,
    host: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    content_length: int | None,
) -> bytes:
    """Return the complete head of one request; errors as in `head_prefix`."""
    return sized(head_prefix(method, target, host, headers), content_length)
