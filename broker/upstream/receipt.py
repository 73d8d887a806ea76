"""Asks the kernel whether a request that got no answer can have arrived at the other end at all.

TCP acknowledges what has come, and a connection that the other end had closed acknowledges nothing
more. So what is still unacknowledged when a connection is lost tells a request that nobody has read
from one that was read and then dropped. Offsets are those of Linux's `struct tcp_info`
(include/uapi/linux/tcp.h); elsewhere nothing is known, and a request counts as arrived.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from typing import Final

_INFO_BYTES: Final = 216
_ACKED_AT: Final = 120
_SENT_AT: Final = 200
_ACKED: Final = struct.Struct("=Q")
_SENT: Final = struct.Struct("=QQ")
"""All bytes sent, and those of them that were sent again."""
_OPENING: Final = 1
"""The opening of a connection is acknowledged, and counted, as a byte."""


def unacknowledged(transport: asyncio.Transport) -> int:
    """Return how many of the bytes sent have not been acknowledged; 0 where that is not known."""
    sock = transport.get_extra_info("socket")
    if sock is None or sys.platform != "linux":
        return 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    except OSError:
        return 0
    if len(info) < _INFO_BYTES:
        return 0  # of a kernel before 4.19
    [acked] = _ACKED.unpack_from(info, _ACKED_AT)
    sent, again = _SENT.unpack_from(info, _SENT_AT)
    return max(int(sent - again - (acked - _OPENING)), 0)
