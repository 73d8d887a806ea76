"""Goes through much while all others have their turn: a thousand endpoints are a tenth of a second
of the processor, in which no call would be served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

TOGETHER: Final = 50

Each = TypeVar("Each")


async def in_turns(whole: Iterable[Each]) -> AsyncIterator[Each]:
    """Yield each; after each TOGETHER others have their turn."""
    for place, each in enumerate(whole, start=1):
        yield each
        if place % TOGETHER == 0:
            await asyncio.sleep(0)
