"""Shares the callers of one port among the processes that listen on it.

The kernel wakes all of them for each who connects, and the first to come takes it. So one that is
awake may take all of a burst, which then stay with it, and one that is full may turn callers away
while another has room. Each therefore tells the others on a board how many it has, and leaves
callers to them for a moment where it is ahead, and for as long as it is full and another is not.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOARD: Final = "connections"
"""The name of its file."""
STALE_S: Final = 1.0
"""Who has told nothing for so long has died, or is halted."""
AHEAD_MIN: Final = 4
_AHEAD_SHARE: Final = 8
"""Who has an eighth more than another, and at least AHEAD_MIN, is ahead."""
AHEAD_S: Final = 0.001
"""Long enough for one who was woken to take a caller; who is not comes too late."""
FULL_S: Final = 0.02
_LINE: Final = struct.Struct("=dq")
_NO_ROOM: Final = -1


class Board:
    """A line for each process: when it told something last, and how many connections it has."""

    def __init__(
        self, path: Path, number: int, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`path` is a file that `lay_out` made, `number` the line of this process; `now_s` is the
        same clock for all. Raises OSError."""
        self._number = number
        self._now_s = now_s
        descriptor = os.open(path, os.O_RDWR)
        try:
            self._lines = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)

    @staticmethod
    def lay_out(path: Path, count: int) -> None:
        """Make a board for so many processes. Raises OSError."""
        path.write_bytes(bytes(_LINE.size * count))

    def tell(self, connections: int, *, room: bool) -> None:
        """Tell the others how many connections there are here, and whether there is room."""
        told = connections if room else _NO_ROOM
        _LINE.pack_into(self._lines, _LINE.size * self._number, self._now_s(), told)

    def others(self) -> list[int]:
        """Return how many connections each of the others has that lives and has room."""
        oldest_s = self._now_s() - STALE_S
        lines = _LINE.iter_unpack(self._lines)
        return [
            told
            for number, (told_at_s, told) in enumerate(lines)
            if number != self._number and told != _NO_ROOM and told_at_s > oldest_s
        ]


@dataclass(frozen=True, slots=True)
class Shared:
    """A port that others listen on too."""

    listening: socket.socket
    board: Board

    def socket(self) -> socket.socket:
        """Return another handle of the same socket, to be closed while the others take callers."""
        self.listening.setblocking(False)  # else a copy makes it block, for all of them
        return self.listening.dup()


class Turns:
    """Decides when to leave the next callers to the other processes."""

    def __init__(self, board: Board, most: int) -> None:
        self._board = board
        self._most = most
        self._granted = 0
        """So many more may be taken though it is ahead: the others had their moment."""

    def tell(self, connections: int) -> None:
        """Tell the others of so many connections."""
        self._board.tell(connections, room=connections < self._most)

    def withdraw(self) -> None:
        """Tell the others that nobody is taken here any more."""
        self._board.tell(0, room=False)

    def pause_s(self, connections: int) -> float:
        """Tell the others of so many connections; return how long to leave callers to them, 0 for
        not at all. Where all are full each takes callers, and turns them away or lets others go."""
        self.tell(connections)
        others = self._board.others()
        if not others:
            return 0.0
        if connections >= self._most:
            return FULL_S
        ahead = max(AHEAD_MIN, connections // _AHEAD_SHARE)
        if connections < min(others) + ahead:
            self._granted = 0
        elif self._granted:
            self._granted -= 1
        else:
            self._granted = ahead
            return AHEAD_S
        return 0.0
