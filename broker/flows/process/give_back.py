"""Gives memory that is free back to the system, now and then.

What a load or the reading of a catalog has once needed at its most, the C library keeps for itself,
in pieces between what is in use: of 163 MB after 1,000 streams 5 to 8.

To give it back takes 0.1 to 2 ms where there is little, and about 0.4 ms for each MB: 60 to 80 ms
for 150 MB in pieces of 9 kB, and 15 more each time that these pieces are gone through for nothing.
So it is done only where there may be something, and by a thread. That spares the calls no more than
a part of it: what is smaller than 1 kB comes from elsewhere, but whoever needs more waits until the
C library has done.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

EVERY_S: Final = 15.0
WORTH_BYTES: Final = 4_000_000
_STATM: Final = Path("/proc/self/statm")


class Held(NamedTuple):
    """What a process holds, in bytes."""

    free: int
    """Of the C library's, whether it was given back or not."""
    resident: int


class Heap(NamedTuple):
    """The C library's memory."""

    held: Callable[[], Held]
    trim: Callable[[], object]


class GiveBack:
    """Remembers how little was held since the last time."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self._least = Held(0, 0)

    def if_worth(self) -> None:
        """Give back where more is free, or more resident, than there has been: else nothing was
        freed since, nor was anything used again of what had been given back."""
        held, least = self._heap.held(), self._least
        if held.free - least.free < WORTH_BYTES and held.resident - least.resident < WORTH_BYTES:
            self._least = Held(*map(min, held, least))
            return
        self._heap.trim()
        self._least = self._heap.held()


async def give_back_now_and_then(every_s: float = EVERY_S, heap: Heap | None = None) -> None:
    """Give back for ever; ends by cancellation."""
    heap = heap or c_heap()
    if heap is None:
        return
    giving = GiveBack(heap)
    while True:
        await asyncio.sleep(every_s)
        # No file can be opened while connections have taken all that a process may have.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(giving.if_worth)


class _Info(ctypes.Structure):
    """As `struct mallinfo2` of malloc.h."""

    _fields_ = [(f"_{place}", ctypes.c_size_t) for place in range(8)] + [
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def c_heap() -> Heap | None:
    """Return this process's; None where the C library is not GNU's of 2.33 or later."""
    libc = ctypes.CDLL(None)
    trim, info = getattr(libc, "malloc_trim", None), getattr(libc, "mallinfo2", None)
    if trim is None or info is None:
        return None
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    info.argtypes, info.restype = [], _Info
    page_bytes = os.sysconf("SC_PAGE_SIZE")

    def held() -> Held:
        resident = int(_STATM.read_text().split()[1]) * page_bytes
        return Held(int(info().fordblks), resident)

    return Heap(held, lambda: trim(0))
