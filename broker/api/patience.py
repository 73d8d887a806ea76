"""How long the control plane goes on for one caller: not past a stop, and not without measure."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from broker.api.parts import Parts
from broker.errors import Unavailable
from broker.flows.access.authenticate import Caller

T = TypeVar("T")

VERIFICATIONS_PER_MINUTE: Final = 600
STREAMS_PER_MINUTE: Final = 60
"""So often a key may open the stream of prices."""
_LOOK_S: Final = 0.1


async def unless_stopping(parts: Parts, work: Coroutine[Any, Any, T]) -> T:
    """Return what becomes of work that may take long. Raises Unavailable, with the work cancelled,
    once the process is told to stop: it can be asked for again elsewhere."""
    task = asyncio.ensure_future(work)
    try:
        while not parts.stopping:
            done, _ = await asyncio.wait([task], timeout=_LOOK_S)
            if done:
                return task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])
    raise Unavailable("The broker is stopping; ask again.", retry_after_s=1.0)


async def require_measure(parts: Parts, caller: Caller, what: str, per_minute: int) -> None:
    """Count one of `what` of a key or a session's account. Raises TooManyCalls."""
    whose = caller.key_id or str(caller.account_id)
    await parts.live.limits.count(whose, what, per_minute)
