"""Refuses heads that the parser accepts, but that others may read as another message.

What is passed through must mean the same to everybody on its way (RFC 9112, sections 6.1 and 11.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_VERSIONS: Final = ("1.1", "1.0")
_SWITCHING: Final = 101
HEADERS_MAX: Final = 256
"""Headers of one answer, and trailers: a short one takes twenty times the bytes that it has."""


def check_head(status: int, version: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise ValueError for a head that is none of an answer to what was asked."""
    if status < 100 or status == _SWITCHING:
        raise ValueError(f"status {status} was not asked for")
    if version not in _VERSIONS:
        raise ValueError(f"version {version}")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    # Nobody asked for another coding, and a body that is left in one is not what its type says.
    if codings and (len(codings) > 1 or codings[0].strip().lower() != b"chunked"):
        raise ValueError(f"Transfer-Encoding {b', '.join(codings)[:40]!r}")
