"""Joins what came in pieces of a few bytes, which take many times that as objects of their own."""

from __future__ import annotations

from typing import Final

PIECES_MAX: Final = 256
"""Fewer are not worth a look."""
_BYTES_MIN: Final = 64
"""On average, where there are more: an object takes fifty more than it has."""


def joined(pieces: list[bytes], size_bytes: int) -> list[bytes]:
    """Return pieces of `size_bytes` in all as they are, or as one if they are short.

    The more there is, the more must come before all is copied again; so all copies together are
    some thirty times what comes at most.
    """
    return [b"".join(pieces)] if size_bytes < _BYTES_MIN * len(pieces) else pieces
