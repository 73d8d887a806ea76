"""Measures how late this process comes to what is due, for that is no fault of a server; and tells
when it was halted for so long that it may have missed what others said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

EVERY_S: Final = 0.05
FADING: Final = 0.9
"""What is left of a delay at the next look: half of it after a third of a second."""
HALT_MS: Final = 1_000.0
"""So late, a process was halted, with its machine or by itself."""


class Learner(Protocol):
    """Who is told."""

    late_ms: float


async def watch_lateness(
    now_s: Callable[[], float], learner: Learner, halted: Callable[[], object]
) -> None:
    """Look again and again, until cancelled. The worst of late counts, and fades; `halted` is
    called after each halt."""
    while True:
        due_s = now_s() + EVERY_S
        await asyncio.sleep(EVERY_S)
        late_ms = (now_s() - due_s) * 1_000
        learner.late_ms = max(late_ms, FADING * learner.late_ms)
        if late_ms >= HALT_MS:
            halted()
