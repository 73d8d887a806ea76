"""Tells a 500 by which a server refuses the request itself from a failure of its own.

Some servers answer 500 where 400 is meant. Taken at their word, one malformed request would be
tried again and again, and would eject every endpoint that it reaches for everybody else.
"""

from __future__ import annotations

from typing import Final

_TRITON: Final = (
    "failed to parse the request JSON buffer",
    "failed to get request params",
    "Unable to parse ",
)
_LLAMA_CPP: Final = (
    "Failed to parse messages",
    "Failed to parse tools",
    "image input is not supported",
    "audio input is not supported",
)
_BAD_REQUEST: Final = 400


def status_meant(status: int, said: str) -> int:
    """Return the status of an error answer that says `said`: 400 for a 500 of such words."""
    if status == 500 and said.startswith(_TRITON + _LLAMA_CPP):
        return _BAD_REQUEST
    return status
