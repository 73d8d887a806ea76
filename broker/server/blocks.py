"""Blocks of memory that large bodies are read into, in place, and that serve one after the other.

The kernel writes into a block, and the client for providers sends from it: no copy is made in
between. Memory that was used a moment ago is in the processor's caches and needs no page faults,
which take as long as the bytes themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

BLOCK_BYTES: Final = 2**18
KEPT: Final = 128
"""So many blocks, 32 MB, are kept for the next bodies."""


class Blocks:
    """Blocks of all connections of a server that nobody uses."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def __len__(self) -> int:
        return len(self._free)

    def take(self) -> bytearray:
        """Return a block; what is in it is somebody else's and must be written over."""
        return self._free.pop() if self._free else bytearray(BLOCK_BYTES)

    def give_back(self, blocks: Sequence[bytearray]) -> None:
        """Keep blocks for the next bodies, but for those that something still has a view of.

        A provider's connection may still be sending from one, long after the call has ended.
        """
        for block in blocks:
            if len(self._free) < KEPT and not _is_viewed(block):
                self._free.append(block)


class Filling:
    """A body on its way into blocks; `room` is where its next bytes go."""

    __slots__ = ("_blocks", "_last_bytes", "_views", "left_bytes", "room")

    def __init__(self, blocks: Blocks, size_bytes: int) -> None:
        """`size_bytes` (not 0) are still to come."""
        self.left_bytes = size_bytes
        self._blocks = blocks
        self._views: list[memoryview] = []
        self._last_bytes = 0
        self.room = self._begin()

    @property
    def held_bytes(self) -> int:
        """All memory that it takes."""
        return len(self._views) * BLOCK_BYTES

    def advance(self, size_bytes: int) -> None:
        """Be told that so many bytes have come into `room`."""
        self.left_bytes -= size_bytes
        self._last_bytes += size_bytes
        if size_bytes == len(self.room) and self.left_bytes:
            self.room = self._begin()
        else:
            self.room = self.room[size_bytes:]

    def pieces(self) -> tuple[memoryview, ...]:
        """Return what has come."""
        return (*self._views[:-1], self._views[-1][: self._last_bytes])

    def _begin(self) -> memoryview:
        view = memoryview(self._blocks.take())
        self._views.append(view)
        self._last_bytes = 0
        return view[: self.left_bytes]


def held_by(pieces: Sequence[memoryview]) -> int:
    """Return all memory that pieces take, in bytes."""
    return len(pieces) * BLOCK_BYTES


def blocks_of(pieces: Sequence[memoryview]) -> list[bytearray]:
    """Return the blocks that pieces are of."""
    return [cast(bytearray, piece.obj) for piece in pieces]


def _is_viewed(block: bytearray) -> bool:
    try:
        block.append(block.pop())  # refused, before anything is moved, while there is a view
    except BufferError:
        return True
    return False
