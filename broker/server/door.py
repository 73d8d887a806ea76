"""Closes what listens without cutting off who has just come in."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_RETURN_NOTHING: Final = struct.pack("HBBI", 0x06, 0, 0, 0)
"""The one instruction of a filter, in the code of classic BPF: keep no byte of any packet."""
_TURNS: Final = 3
"""Of the event loop, in which it takes those that have come."""


async def shut(server: asyncio.Server) -> None:
    """Take who has come, nobody else, and listen no more.

    Whoever was connected by the kernel and not taken yet, would be reset with all that it has sent:
    behind a proxy that is a call that fails, for nobody may send it again. So the listening socket
    first hears nothing more: who connects now tries again, and is refused once it is closed. Where
    the system knows no such filter, those few are cut off.
    """
    for each in server.sockets:  # one name may stand for several addresses
        with each.dup() as listening:
            deafen(listening)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    server.close()


def deafen(listening: socket.socket) -> None:
    """Have the kernel drop all that comes for a listening socket, for good and for all who share
    it; connections hear on. Linux alone can do it, and needs no privilege for that."""
    if sys.platform != "linux":
        return
    code = ctypes.create_string_buffer(_RETURN_NOTHING, len(_RETURN_NOTHING))
    program = struct.pack("HP", 1, ctypes.addressof(code))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
