"""Where randomness comes from: a source of its own for each concern, all from the run's seed.

Who calls and when does not depend on what prices do, so two policies run with one seed meet the
very same calls, and their difference is not drowned in chance (common random numbers).
"""

from __future__ import annotations

from random import Random
from zlib import crc32

import numpy as np


def generator(seed: int, *concern: str) -> np.random.Generator:
    """A generator of arrays for a concern, such as ("values", "students")."""
    return np.random.default_rng(_words(seed, concern))


def source(seed: int, *concern: str) -> Random:
    """A generator of single numbers for a concern."""
    return Random(":".join(map(str, _words(seed, concern))))  # noqa: S311 - no secret is made of it


def _words(seed: int, concern: tuple[str, ...]) -> list[int]:
    return [seed, *(crc32(word.encode()) for word in concern)]
