"""Asks a local HTTP server whether it is ready."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

from broker.embedded.child import Probe


def answering(url: str) -> Probe:
    """Return the probe that says yes once `url` is answered with a 2xx status."""

    async def probe() -> bool:
        return await answers(url)

    return probe


async def answers(url: str) -> bool:
    """Tell whether a GET of an http URL is answered with a 2xx status."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
    except OSError:
        return False
    path = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
    with contextlib.closing(writer), contextlib.suppress(OSError):
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\n\r\n".encode())
        status = await reader.readline()
        return status.startswith(b"HTTP/") and status.split(b" ", 2)[1].startswith(b"2")
    return False
