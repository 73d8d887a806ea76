"""Asks the kernel whether a request that got no answer can have arrived at the other end at all.

An acknowledgement may come 40 ms after what it acknowledges, and a reset brings none: what is
unacknowledged then may have been read. But whoever closes in order says with his FIN all that has
come until then. So what is unacknowledged when the stream ends by a FIN came after the other end
had closed, and nobody has read it. Offsets are those of Linux's `struct tcp_info`
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
    """Return how many of the bytes sent have not been acknowledged; 0 where that is not known.

    To be asked only when the other end has closed in order: see above.
    """
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
