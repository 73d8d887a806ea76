"""Says whether the other end has ended what it sent, or somebody has but cut the line.

Over TLS an end is told within it (`close_notify`, RFC 8446, section 6.1); an end of the TCP stream
alone may be of anybody in between. uvloop takes the latter for a reset; the standard loop tells
both alike.
"""

from __future__ import annotations

import asyncio
import ssl


def is_told_over(transport: asyncio.Transport) -> bool:
    """Return whether the end of a stream, of which the transport has just told, is its sender's."""
    tls = transport.get_extra_info("ssl_object")
    if tls is None:
        return True
    try:
        # All that came was handed over before: what is read now is empty, or not there.
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
