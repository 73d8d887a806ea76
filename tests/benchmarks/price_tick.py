"""What one price tick costs: step, clamp, diff and encoding for 100,000 endpoints.

    python -m tests.benchmarks.price_tick

The last line is one JSON object; the figures are medians in milliseconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import pairwise

import numpy as np

from pricing.book import PriceBook
from pricing.controllers.excess import ExcessLoad
from pricing.guardrails import clamp
from pricing.snapshot import Bands, MarketSnapshot

ENDPOINTS = 100_000
TICKS = 30
PARTS = ("step_ms", "clamp_ms", "changed_ms", "to_bytes_ms")


def main() -> None:
    """Run the ticks, print a line for each part and the JSON at the end."""
    rng = np.random.default_rng(1)
    listed = rng.integers(10_000, 10_000_000, (3, ENDPOINTS))
    bands = Bands(listed // 2, listed, listed * 4)
    controller, book = ExcessLoad(), PriceBook.empty()
    state = controller.resume(book, bands)
    laps: list[list[float]] = []
    for tick in range(TICKS):
        load = rng.gamma(2.0, 0.4, ENDPOINTS)
        marks = [time.perf_counter()]
        state, proposed = controller.step(state, MarketSnapshot(float(tick), 1.0, load, bands))
        marks.append(time.perf_counter())
        before, book = book, clamp(book, proposed, bands, tick + 1).book
        marks.append(time.perf_counter())
        book.changed(before)
        marks.append(time.perf_counter())
        book.to_bytes()
        marks.append(time.perf_counter())
        laps.append([(end - start) * 1000.0 for start, end in pairwise(marks)])
    report(laps)


def report(laps: list[list[float]]) -> None:
    """The median of each part and of the whole."""
    parts = dict(zip(PARTS, map(statistics.median, zip(*laps, strict=True)), strict=True))
    for part, median_ms in parts.items():
        sys.stdout.write(f"{part:10} {median_ms:8.2f} ms\n")
    figures = {"ms_100k": statistics.median(map(sum, laps)), **parts}
    sys.stdout.write(json.dumps({name: round(ms, 2) for name, ms in figures.items()}) + "\n")


if __name__ == "__main__":
    main()
