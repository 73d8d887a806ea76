"""Says when a server has gone silent: before calls time out there, and others join them.

Several wait for far longer than nearly all of their kind do, and nobody hears of it meanwhile. One
whose answers take long by nature is not silent before several times that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

SEVERAL: Final = 3
FACTOR: Final = 3.0
"""Times what 19 of 20 answers take at most."""
LEAST_S: Final = 0.5
"""However fast it is, to be silent for so long may be chance."""


def is_stalled(waiting_s: Sequence[float], heard_ago_s: float, tail_s: float) -> bool:
    """Say it of a server whose calls have waited so long for a byte, which was last heard of so
    long ago by anybody; `tail_s` is what 19 of 20 answers take at most."""
    late_s = max(FACTOR * tail_s, LEAST_S)
    return heard_ago_s >= late_s and sum(each >= late_s for each in waiting_s) >= SEVERAL
