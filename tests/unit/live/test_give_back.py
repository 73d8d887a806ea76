"""What was needed once is given back to the system, though something behind it is still in use."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

import pytest

from broker.flows.give_back import give_back_now_and_then
from tests.integration.live.waiting import until

BLOCKS, BLOCK_BYTES = 20_000, 2_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library keeps nothing back"
)
async def test_memory_that_is_free_between_what_is_in_use_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(BLOCKS)]
    for each in blocks:
        ctypes.memset(each, 1, BLOCK_BYTES)
    last = blocks.pop()
    for each in blocks:
        libc.free(each)
    before = resident_bytes()
    giving = asyncio.create_task(give_back_now_and_then(0.01))
    try:
        await until(lambda: before - resident_bytes() > BLOCKS * BLOCK_BYTES / 2)
    finally:
        giving.cancel()
        libc.free(last)
