"""Looks for garbage rarely while a run goes on: its calls leave none that needs a collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_MAX = 50_000
"""Objects made, less those gone, before the collector looks; with the usual few hundred it would
walk over thousands of calls under way again and again, for a fifth of all time."""


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Let the collector of this process look rarely while the block runs."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG_MAX, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
