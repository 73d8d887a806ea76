"""Counts what happens in a run, in memory that does not grow with its length.

Calls are handed in as rows or as columns, and are counted in blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pricing.book import FloatArray, IntArray
from simulations.measured.record import CALL_COLUMNS, CODES, Code, Histogram, Table, Totals

BLOCK = 4_096
_ROW = Struct(f"{len(CALL_COLUMNS)}d")
_PACK = _ROW.pack
_BLOCK_BYTES = BLOCK * _ROW.size
EDGES_S: tuple[float, float] = (1e-4, 1e5)
BINS_PER_DOUBLING = 16

_SUMS: Mapping[str, type] = {
    "attempts": np.int64,
    "tokens_in": np.int64,
    "tokens_out": np.int64,
    "charge_nanos": np.int64,
    "take_nanos": np.int64,
    "cost_nanos": np.float64,
    "offer_nanos": np.float64,
    "worth_nanos": np.float64,
}


class Tally:
    """What became of the calls. Those that arrived before `from_s` are in the sample only."""

    def __init__(self, shape: tuple[int, int], from_s: float, sample: Sample) -> None:
        """`shape` is (classes, endpoints)."""
        classes, endpoints = shape
        self._shape = (classes, endpoints + 1)
        self._from_s = from_s
        self._sample = sample
        self._rows = bytearray()
        """Row after row; whole numbers are below 2^53."""
        self._columns: list[Sequence[NDArray[Any]]] = []
        self._waiting = 0
        """How many calls are in the columns."""
        self._calls = np.zeros(classes * (endpoints + 1) * CODES, dtype=np.int64)
        self._sums: dict[str, NDArray[Any]] = {
            name: np.zeros(classes * (endpoints + 1), dtype=kind) for name, kind in _SUMS.items()
        }
        self._ttft = Histograms(classes)
        self._tpot = Histograms(classes)
        self._e2e = Histograms(classes)

    def add(self, row: tuple[float, ...]) -> None:
        """Count one call; a row has the columns of CALL_COLUMNS in their order."""
        self._rows += _PACK(*row)
        if len(self._rows) >= _BLOCK_BYTES:
            self._flush()

    def add_columns(self, columns: Sequence[NDArray[Any]]) -> None:
        """Count many calls; columns as in CALL_COLUMNS."""
        self._columns.append(columns)
        self._waiting += columns[0].size
        if self._waiting >= BLOCK:
            self._flush()

    def totals(self) -> Totals:
        """The sums so far."""
        self._flush()
        sums = {name: each.reshape(self._shape).copy() for name, each in self._sums.items()}
        return Totals(calls=self._calls.reshape(*self._shape, CODES).copy(), **sums)

    def histograms(self) -> dict[str, tuple[Histogram, ...]]:
        """By name (`ttft`, `tpot`, `e2e`) and class."""
        self._flush()
        return {
            "ttft": self._ttft.all(),
            "tpot": self._tpot.all(),
            "e2e": self._e2e.all(),
        }

    def sample(self) -> Table:
        """The kept calls, by arrival."""
        self._flush()
        return self._sample.table()

    def _flush(self) -> None:
        if self._columns:
            parts, self._columns, self._waiting = self._columns, [], 0
            self._count(
                {
                    name: np.concatenate(column)
                    for name, column in zip(CALL_COLUMNS, zip(*parts, strict=True), strict=True)
                }
            )
        if self._rows:
            rows, self._rows = np.frombuffer(bytes(self._rows)), bytearray()
            columns = rows.reshape(-1, len(CALL_COLUMNS)).T
            self._count(
                {
                    name: column.astype(kind)
                    for (name, kind), column in zip(CALL_COLUMNS.items(), columns, strict=True)
                }
            )

    def _count(self, calls: dict[str, NDArray[Any]]) -> None:
        self._sample.add(calls)
        if calls["arrival_s"].min(initial=np.inf) < self._from_s:
            late = calls["arrival_s"] >= self._from_s
            calls = {name: each[late] for name, each in calls.items()}
        of_class = calls["consumer_class"].astype(np.int64)
        endpoint = calls["endpoint"].astype(np.int64)
        columns = self._shape[1]
        cell = of_class * columns + np.where(endpoint < 0, columns - 1, endpoint)
        self._calls += np.bincount(cell * CODES + calls["code"], minlength=self._calls.size)
        for name, sums in self._sums.items():
            # As weights integers would be floats, which lose nano-dollars.
            np.add.at(sums, cell, calls[name].astype(sums.dtype))
        served = np.flatnonzero(calls["code"] == Code.SERVED)
        of_class, ttft, e2e = of_class[served], calls["ttft_s"][served], calls["e2e_s"][served]
        self._ttft.add(of_class, ttft)
        self._e2e.add(of_class, e2e)
        further = calls["tokens_out"][served] - 1
        long = np.flatnonzero(further > 0)
        self._tpot.add(of_class[long], (e2e[long] - ttft[long]) / further[long])


class Histograms:
    """A histogram for each class."""

    def __init__(self, classes: int) -> None:
        low, high = np.log2(EDGES_S)
        self._bins = int(np.ceil((high - low) * BINS_PER_DOUBLING))
        self._low = float(low)
        self._counts = np.zeros((classes, self._bins), dtype=np.int64)
        self._sums = np.zeros(classes)

    def add(self, of_class: IntArray, seconds: FloatArray) -> None:
        """Count durations."""
        place = np.log2(np.maximum(seconds, EDGES_S[0])) - self._low
        bins = np.minimum((place * BINS_PER_DOUBLING).astype(np.int64), self._bins - 1)
        cell = of_class * self._bins + bins
        counted = np.bincount(cell, minlength=self._counts.size)
        self._counts += counted.reshape(self._counts.shape)
        self._sums += np.bincount(of_class, seconds, self._sums.size)

    def all(self) -> tuple[Histogram, ...]:
        """Copies, by class."""
        edges = 2.0 ** (self._low + np.arange(self._bins + 1) / BINS_PER_DOUBLING)
        return tuple(
            Histogram(edges, counts.copy(), float(total))
            for counts, total in zip(self._counts, self._sums, strict=True)
        )


class Sample:
    """Keeps so many of all calls, each with the same chance (Vitter's algorithm R, ACM TOMS 11,
    1985); the first so many are simply kept."""

    def __init__(self, most: int, rng: np.random.Generator) -> None:
        self._most = most
        self._rng = rng
        self._seen = 0
        self._room = 0
        """Rows that the columns have by now."""
        self._kept: dict[str, NDArray[Any]] = {
            name: np.zeros(0, dtype=kind) for name, kind in CALL_COLUMNS.items()
        }

    def add(self, calls: Mapping[str, NDArray[Any]]) -> None:
        """Be shown calls."""
        size = calls["arrival_s"].size
        free = max(min(self._most - self._seen, size), 0)
        if free:
            self._make_room(self._seen + free)
            for name, kept in self._kept.items():
                kept[self._seen : self._seen + free] = calls[name][:free]
        rest = np.arange(free, size)
        if rest.size and self._most:
            places = self._rng.integers(0, self._seen + rest + 1)
            chosen = np.flatnonzero(places < self._most)
            for name, kept in self._kept.items():
                kept[places[chosen]] = calls[name][rest[chosen]]
        self._seen += size

    def table(self) -> Table:
        """The kept ones, by arrival."""
        kept_calls = min(self._seen, self._most)
        order = np.argsort(self._kept["arrival_s"][:kept_calls], kind="stable")
        return {name: kept[order] for name, kept in self._kept.items()}

    def _make_room(self, rows: int) -> None:
        if rows <= self._room:
            return
        self._room = min(max(rows, 2 * self._room), self._most)
        for name, kept in self._kept.items():
            self._kept[name] = np.concatenate(
                (kept, np.zeros(self._room - kept.size, dtype=kept.dtype))
            )
