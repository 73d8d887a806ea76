"""Waits for what must come about, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

PATIENCE_S = 40.0
"""Nothing that must come takes so long; only a test that fails waits for it."""


async def until(holds: Callable[[], Any], within_s: float = PATIENCE_S) -> None:
    """Poll until `holds`, a function or coroutine function, is true; TimeoutError otherwise."""
    async with asyncio.timeout(within_s):
        while True:
            answer = holds()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return
            await asyncio.sleep(0.01)
