"""Serves an app on a real socket while a test looks at it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from broker.server.bridge import BODIES_BYTES_MAX, Bridge
from broker.server.limits import ServerLimits
from broker.server.listener import Listener
from broker.server.request import Handler, Request

STOP_LIMIT_S = 2.0


@contextlib.asynccontextmanager
async def serving(
    app: Any,
    bodies_bytes_max: int = BODIES_BYTES_MAX,
    limits: ServerLimits = ServerLimits(),  # noqa: B008 - it never changes
) -> AsyncIterator[str]:
    """The origin of a server on a free port; `app` is an ASGI app."""
    bridge = Bridge(app, bodies_bytes_max)

    def opened(request: Request) -> tuple[Handler, bool]:
        bridge.open(request)
        return bridge.handle, False

    listener = Listener(opened, limits)
    port = await listener.start("127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await listener.stop(STOP_LIMIT_S)
