"""What one price tick costs: step, clamp, diff and encoding for 100,000 endpoints.

    python -m tests.benchmarks.price_tick

Each controller by itself, and the live tick: an ensemble, here of three groups, which also learns
how demand answers and watches over its controllers. The last line is one JSON object; the figures
are medians in milliseconds of CPU. `ms_100k` is the dearest of them.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np

from pricing.book import PriceBook
from pricing.choice import CONTROLLERS
from pricing.controllers import Controller
from pricing.ensemble import Ensemble, Group
from pricing.guardrails import clamp
from pricing.snapshot import Bands, MarketSnapshot

ENDPOINTS = 100_000
TICKS = 30
PARTS = ("step", "clamp", "changed", "to_bytes")


def main() -> None:
    """Measure each controller, print a line for each and the JSON at the end."""
    rng = np.random.default_rng(1)
    listed = rng.integers(10_000, 10_000_000, (3, ENDPOINTS))
    bands = Bands(listed // 2, listed, listed * 4)
    sys.stdout.write(f"{'':12}{''.join(f'{part:>10}' for part in PARTS)}{'whole':>10}  ms\n")
    figures = {}
    for name, controller in controllers().items():
        laps = measure(controller, bands)
        parts = [statistics.median(each) for each in zip(*laps, strict=True)]
        whole = statistics.median(map(sum, laps))
        figures[f"{name}_ms"] = round(whole, 2)
        told = "".join(f"{each:10.2f}" for each in (*parts, whole))
        sys.stdout.write(f"{name:12}{told}\n")
    sys.stdout.write(json.dumps({"ms_100k": max(figures.values()), **figures}) + "\n")


def controllers() -> dict[str, Controller[Any]]:
    """By name; the shadow prices are those of endpoints alone, for no fleet is that large."""
    each = {name: kind() for name, kind in CONTROLLERS.items()}
    groups = tuple(Group(name, name, each[name]) for name in ("excess", "pi", "posted"))
    mixed = Ensemble(groups, np.arange(ENDPOINTS) % len(groups))
    return {**each, "live": Ensemble.of(each["excess"]), "mixed": mixed}


def measure(controller: Controller[Any], bands: Bands) -> list[list[float]]:
    """Milliseconds of each part, for each tick."""
    rng = np.random.default_rng(2)
    book = PriceBook.from_matrix(0, bands.listed)
    state = controller.resume(book, bands)
    delay = np.full(ENDPOINTS, 2.0)
    laps = []
    for tick in range(TICKS):
        load = rng.gamma(2.0, 0.4, ENDPOINTS)
        snapshot = MarketSnapshot(float(tick), 1.0, load, bands, book, delay)
        marks = [time.process_time()]
        state, proposed = controller.step(state, snapshot)
        marks.append(time.process_time())
        before, book = book, clamp(book, proposed, bands, tick + 1)
        marks.append(time.process_time())
        book.changed(before)
        marks.append(time.process_time())
        book.to_bytes()
        marks.append(time.process_time())
        laps.append([(end - start) * 1000.0 for start, end in pairwise(marks)])
    return laps


if __name__ == "__main__":
    main()
