"""Makes requests of heads that are the last one's on their connection, without parsing them."""

from __future__ import annotations

from typing import Final

import msgspec

from broker.server.request import Carrier, Headers, Request
from broker.upstream.known_head import KnownHead, cut, with_length

Facts = tuple[Carrier, str, str, bytes, bytes, Headers, dict[bytes, bytes], str]
"""The first fields of a request: what its head says."""

_SPECIAL: Final = (b"transfer-encoding", b"expect", b"upgrade")


class Form(msgspec.Struct, frozen=True, eq=False):
    """The head of the last request, and what was read from it."""

    head: KnownHead
    facts: Facts

    def match(self, data: bytes, body_bytes_max: int) -> Request | None:
        """Return the request that `data` is, whole and nothing beside; None: let it be parsed."""
        found = self.head.match(data)
        if found is None or len(found[1]) > body_bytes_max:
            return None
        digits, body = found
        request = Request(*self.facts)
        request.body, request.size_bytes = body, len(body)
        if digits != self.head.digits:
            request.headers = with_length(request.headers, digits)
            request.fields = {**request.fields, b"content-length": digits}
        return request


class LargeForm(msgspec.Struct, frozen=True, eq=False):
    """The head of the last request, whose body went into blocks, and what was read from it."""

    head: bytes
    facts: Facts
    length_bytes: int
    """Of the body."""

    def match(self, data: bytes) -> Request | None:
        """Return the request that begins with `data`, some of its body with it; None: let it be
        parsed."""
        if not data.startswith(self.head):
            return None
        request = Request(*self.facts)
        begin = data[len(self.head) :]
        if begin:
            request.chunks = [begin]
            request.size_bytes = len(begin)
        return request


def large_form_of(data: bytes, request: Request, length_bytes: int) -> LargeForm | None:
    """Return the form of the only request that began with `data`; None where its head is a special
    one, or not all that is before its body."""
    head = _head_of(data, request)
    return LargeForm(head, _facts_of(request), length_bytes) if head else None


def form_of(data: bytes, request: Request) -> Form | None:
    """Return the form of a request that has come whole; None where its head is a special one, or
    not all that is before its body.

    `data` are the bytes that it, and no other, began with.
    """
    if not _head_of(data, request):
        return None
    head = cut(data, request.header(b"content-length"))
    return Form(head, _facts_of(request)) if head is not None else None


def _head_of(data: bytes, request: Request) -> bytes:
    """Return the head of the request that `data` is, as far as it has come; empty where other bytes
    could be taken for it or it for others."""
    head = data[: len(data) - request.size_bytes]
    first = b"%b %b" % (request.method.encode(), request.raw_path)
    alone = head.startswith(first) and head.find(b"\r\n\r\n") == len(head) - 4
    return head if alone and _is_plain(request) else b""


def _is_plain(request: Request) -> bool:
    if not request.keep_alive or request.repeats_a_header:
        return False
    return not any(name in request.fields for name in _SPECIAL)


def _facts_of(request: Request) -> Facts:
    read = (request.path, request.raw_path, request.query, request.headers, request.fields)
    return (request.connection, request.method, *read, request.version)
