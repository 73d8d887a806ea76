"""Gives memory that is free back to the system, now and then.

What a load or the reading of a catalog has once needed at its most, the C library keeps for itself,
in pieces between what is in use: of 163 MB after 1,000 streams 5 to 8.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 15.0
"""It takes a millisecond."""


async def give_back_now_and_then(every_s: float = EVERY_S) -> None:
    """Give back for ever; ends by cancellation."""
    give_back = _trim()
    while give_back is not None:
        await asyncio.sleep(every_s)
        give_back()


def _trim() -> Callable[[], int] | None:
    """Return what does it; None where the C library is not GNU's, which alone has it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return lambda: int(trim(0))
