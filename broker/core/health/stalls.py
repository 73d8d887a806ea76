"""Says when a server has gone silent: before calls time out there, and others join them.

Several wait for far longer than nearly all of their kind do, and nobody hears of it meanwhile. That
tells something at once only of a server that is clearly fast. Elsewhere seconds may be chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SEVERAL: Final = 3
FACTOR: Final = 5.0
"""Times what 19 of 20 answers take at most."""
LEAST_S: Final = 1.0
"""However fast it is, to be silent for so long may be chance."""
FAST_S: Final = 0.25
"""Whose 19 of 20 answers begin within this is clearly fast."""
SLOW_LEAST_S: Final = 10.0
"""The same moment for all others: a long prompt, or a queue, holds them up for seconds."""


def late_s(tail_s: float) -> float:
    """Return for how many seconds a server must be silent; `tail_s` is what 19 of 20 answers take
    at most."""
    return max(FACTOR * tail_s, LEAST_S if tail_s <= FAST_S else SLOW_LEAST_S)


def is_stalled(waiting_s: Sequence[float], heard_ago_s: float, tail_s: float) -> bool:
    """Say it of a server whose calls have waited so long for a byte, which was last heard of so
    long ago by anybody; `tail_s` as for `late_s`."""
    least_s = late_s(tail_s)
    return heard_ago_s >= least_s and sum(each >= least_s for each in waiting_s) >= SEVERAL
