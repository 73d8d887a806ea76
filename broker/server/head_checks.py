"""Refuses heads that are too large, or that two readers could read in two ways."""

from __future__ import annotations

from typing import Final

from broker.server.neighbours import NotServed
from broker.server.request import Request

_VERSIONS: Final = frozenset({"1.1", "1.0"})


def check_head(request: Request, head_bytes: int, limit_bytes: int) -> None:
    """Raise NotServed where a head of so many bytes, with what came before it, is not served."""
    if head_bytes > limit_bytes:
        size = sum(len(name) + len(value) + 4 for name, value in request.headers)
        if size > limit_bytes:
            raise NotServed(431)
    if request.repeats_a_header and [name for name, _ in request.headers].count(b"host") > 1:
        raise NotServed(400)
    if request.method == "CONNECT" or request.version not in _VERSIONS:
        raise NotServed(400)
