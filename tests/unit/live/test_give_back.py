"""What was needed once is given back to the system, though something behind it is still in use."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import threading
from pathlib import Path

import pytest

from broker.flows.process.give_back import WORTH_BYTES, GiveBack, Heap, Held, give_back_now_and_then
from tests.waiting import until

BLOCKS, BLOCK_BYTES = 20_000, 2_000


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library keeps nothing back"
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


class Simple:
    """A heap of which all is given back that is free."""

    def __init__(self) -> None:
        self.used = self.free = self.resident = 0
        self.trims = 0

    def use(self, size: int) -> None:
        """Take from what is free, and from the system what is missing."""
        self.used += size
        self.free = max(0, self.free - size)
        self.resident = max(self.resident, self.used)

    def leave(self, size: int) -> None:
        """Free some, which stays resident."""
        self.used -= size
        self.free += size

    def trim(self) -> None:
        self.trims += 1
        self.resident = self.used

    def heap(self) -> Heap:
        return Heap(lambda: Held(self.free, self.resident), self.trim)


def test_what_was_freed_is_given_back_once() -> None:
    simple = Simple()
    giving = GiveBack(simple.heap())
    simple.use(50 * WORTH_BYTES)
    giving.if_worth()  # it may be free: what was before is not known
    assert simple.trims == 1
    simple.leave(40 * WORTH_BYTES)
    for _ in range(5):
        giving.if_worth()
    assert (simple.trims, simple.resident) == (2, simple.used)


def test_what_was_given_back_used_again_and_freed_is_given_back_again() -> None:
    simple = Simple()
    giving = GiveBack(simple.heap())
    simple.use(50 * WORTH_BYTES)
    simple.leave(40 * WORTH_BYTES)
    giving.if_worth()
    for _ in range(3):
        simple.use(20 * WORTH_BYTES)
        simple.leave(20 * WORTH_BYTES)
        assert simple.resident > simple.used
        giving.if_worth()
        assert simple.resident == simple.used


def test_little_is_not_worth_it() -> None:
    simple = Simple()
    giving = GiveBack(simple.heap())
    for _ in range(9):
        simple.use(WORTH_BYTES // 2)
        simple.leave(WORTH_BYTES // 2)
        giving.if_worth()
    assert simple.trims == 0


def test_a_little_each_time_is_worth_it_in_the_end() -> None:
    simple = Simple()
    giving = GiveBack(simple.heap())
    simple.use(9 * WORTH_BYTES)
    giving.if_worth()
    for _ in range(6):
        simple.leave(WORTH_BYTES // 2)
        giving.if_worth()
    assert simple.trims == 1 + 3


async def test_the_event_loop_goes_on_meanwhile() -> None:
    go_on, told_in_time = threading.Event(), list[bool]()
    begun = threading.Event()

    def trim() -> None:
        begun.set()
        told_in_time.append(go_on.wait(2.0))

    heap = Heap(lambda: Held(2 * WORTH_BYTES, 0), trim)
    giving = asyncio.create_task(give_back_now_and_then(0.001, heap))
    try:
        await until(begun.is_set)
        go_on.set()
        await until(lambda: bool(told_in_time))
    finally:
        giving.cancel()
    assert told_in_time == [True]


async def test_it_goes_on_after_no_file_could_be_opened() -> None:
    asked, trimmed = list[int](), threading.Event()

    def held() -> Held:
        asked.append(1)
        if len(asked) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return Held(2 * WORTH_BYTES, 0)

    giving = asyncio.create_task(give_back_now_and_then(0.001, Heap(held, trimmed.set)))
    try:
        await until(trimmed.is_set)
    finally:
        giving.cancel()
    assert len(asked) > 1
