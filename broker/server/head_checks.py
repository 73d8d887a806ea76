"""Refuses heads that are too large, that two readers could read in two ways, or whose body is."""

from __future__ import annotations

from functools import partial
from typing import Final

from broker.errors import BodyTooLarge, BrokerError, TooManyCalls
from broker.server.limits import ServerLimits
from broker.server.neighbours import NotServed, Server
from broker.server.request import Request
from broker.server.room import LARGE_BYTES

HEADERS_MAX: Final = 256
"""Headers of one request, and trailers: a short one takes twenty times the bytes that it has."""
_VERSIONS: Final = frozenset({"1.1", "1.0"})


def check_head(request: Request, head_bytes: int, limit_bytes: int) -> None:
    """Raise NotServed where a head of so many bytes, with what came before it, is not served."""
    if head_bytes > limit_bytes:
        size = sum(len(name) + len(value) + 4 for name, value in request.headers)
        if size > limit_bytes:
            raise NotServed(431)
    if request.method == "CONNECT" or request.version not in _VERSIONS:
        raise NotServed(400)
    if request.repeats_a_header:
        names = [name for name, _ in request.headers]
        if names.count(b"host") > 1 or names.count(b"transfer-encoding") > 1:
            raise NotServed(400)
    coding = request.header(b"transfer-encoding")
    if coding is not None and coding.strip().lower() != b"chunked":
        raise NotServed(400)


def body_refusal(request: Request, server: Server) -> BrokerError | None:
    """Return why a body is refused before it comes: its size, or that there is no room for it,
    though all have made some that stalled midway."""
    limits, size_bytes = server.limits, request.declared_bytes
    if size_bytes > limits.body_bytes_max:
        return too_large(limits)
    if size_bytes <= LARGE_BYTES and request.header(b"transfer-encoding") is None:
        return None
    while (refusal := server.room.refusal(request.owner, limits.bodies_bytes_max)) is not None:
        own = isinstance(refusal, TooManyCalls)  # only those of this account would help it
        if not server.uploads.let_go(partial(_is_large, request, own)):
            break
    return refusal


def _is_large(request: Request, own: bool, other: Request) -> bool:
    whose = not own or other.owner == request.owner
    return whose and other.whole and other.size_bytes > LARGE_BYTES


def too_large(limits: ServerLimits) -> BodyTooLarge:
    """Return the refusal of a body for its size."""
    return BodyTooLarge(f"A request body may have at most {limits.body_bytes_max} bytes.")
