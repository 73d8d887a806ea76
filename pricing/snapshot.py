"""The market as a controller sees it at one tick: bands, load, and how load is counted.

    own      = calls in flight, counted by the broker
    report   = min(max(running + waiting - own, 0), max(1, own / 2), capacity / 4), 0 when stale
    refused  = refusals per second * mean service time           (Little's law)
    load     = (own + report + refused) / capacity               may exceed 1

A provider who reports load raises its own price. So a report only ever adds to the broker's own
counts, and adds at most a quarter of capacity: an endpoint without traffic stays under any sensible
target whatever it claims, and can slow the fall of its price but not make it rise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pricing.book import FloatArray, IntArray, PriceBook
from pricing.fluid import FluidMarket
from pricing.money import MAX_RATE_CALL_NANOS, MAX_RATE_MICROS

REPORT_SHARE_OF_CAPACITY = 0.25
"""The most a report may add, as a share of capacity."""
REPORT_SHARE_OF_OWN = 0.5
"""The most a report may add, as a share of the broker's own count, though always one call."""

_MAXIMA = np.array([[MAX_RATE_MICROS], [MAX_RATE_MICROS], [MAX_RATE_CALL_NANOS]])


class BandMalformed(ValueError):
    """A band breaks 0 < floor <= list <= ceiling <= maximum where it is priced, or 0 throughout."""


class SnapshotMalformed(ValueError):
    """The parts of a snapshot do not fit each other."""


@dataclass(frozen=True, slots=True, eq=False)
class Bands:
    """Price bands, each an int64 array of shape (3, endpoints), read-only, rows in, out, call.

    Token rates are micro-dollars per million tokens, call rates nano-dollars. What is not priced
    is zero in all of floor, list and ceiling; a number not in use is zero in all three rows.
    """

    floor: IntArray
    listed: IntArray
    ceiling: IntArray
    reach: tuple[FloatArray, FloatArray] = field(init=False, repr=False)
    """ln(price / list) at which the last of an endpoint's rates has reached its floor, and its
    ceiling; worked out once, for every tick asks."""
    present: NDArray[np.bool_] = field(init=False, repr=False)
    """Which numbers are in use; worked out once as well."""

    def __post_init__(self) -> None:
        for name in ("floor", "listed", "ceiling"):
            # In rows, however it came: scattered, a tick reads it ten times as long.
            array = np.array(getattr(self, name), dtype=np.int64, order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        shape = self.floor.shape
        if len(shape) != 2 or shape[0] != 3 or not shape == self.listed.shape == self.ceiling.shape:
            raise BandMalformed("bands are three arrays of shape (3, endpoints)")
        faulty = np.flatnonzero(~self._sound().all(axis=0))
        if faulty.size:
            raise BandMalformed(f"endpoint {int(faulty[0])}: {BandMalformed.__doc__}")
        object.__setattr__(self, "reach", self._reach())
        object.__setattr__(self, "present", (self.ceiling > 0).any(axis=0))

    @classmethod
    def from_rows(cls, rows: Mapping[int, Sequence[int]], size: int | None = None) -> Bands:
        """Bands from endpoint number to the nine values floor, list, ceiling of in, then out,
        then call. `size` makes room for numbers not in use."""
        wanted = max(rows, default=-1) + 1 if size is None else size
        values = np.zeros((wanted, 3, 3), dtype=np.int64)  # endpoint, component, bound
        if rows:
            numbers = np.fromiter(rows, dtype=np.int64, count=len(rows))
            values[numbers] = np.array(list(rows.values()), dtype=np.int64).reshape(-1, 3, 3)
        floor, listed, ceiling = np.moveaxis(values, (2, 1), (0, 1))
        return cls(floor, listed, ceiling)

    def but(self, rows: Mapping[int, Sequence[int]], size: int) -> Bands:
        """The same for `size` endpoints, with other values for some of them, as `from_rows` takes
        them; nine zeros for one that is not in use any more."""
        numbers = np.fromiter(rows, dtype=np.int64, count=len(rows))
        told = np.array(list(rows.values()), dtype=np.int64).reshape(-1, 3, 3)
        bounds = []
        for at, known in enumerate((self.floor, self.listed, self.ceiling)):
            values = np.zeros((3, size), dtype=np.int64)
            kept = min(size, len(self))
            values[:, :kept] = known[:, :kept]
            values[:, numbers] = told[:, :, at].T
            bounds.append(values)
        return Bands(*bounds)

    def __len__(self) -> int:
        return int(self.floor.shape[1])

    def only(self, numbers: IntArray) -> Bands:
        """The bands of these endpoints, renumbered in their order."""
        return Bands(self.floor[:, numbers], self.listed[:, numbers], self.ceiling[:, numbers])

    def _reach(self) -> tuple[FloatArray, FloatArray]:
        priced = self.floor > 0
        fall = np.where(priced, self.listed, 1) / np.where(priced, self.floor, 1)
        rise = np.where(priced, self.ceiling, 1) / np.where(priced, self.listed, 1)
        return -np.log(fall.max(axis=0)), np.log(rise.max(axis=0))

    def _sound(self) -> NDArray[np.bool_]:
        ordered = (self.floor <= self.listed) & (self.listed <= self.ceiling)
        within = (self.floor >= 0) & (self.ceiling <= _MAXIMA)
        sound: NDArray[np.bool_] = ordered & within & ((self.floor > 0) | (self.ceiling == 0))
        return sound


@dataclass(frozen=True, slots=True, eq=False)
class MarketSnapshot:
    """What a controller may know, by endpoint number: at `at_s` in Unix time, `dt_s` after the last
    tick. What stands below `bands` is None where the driver does not measure it."""

    at_s: float
    dt_s: float
    load: FloatArray
    bands: Bands
    book: PriceBook | None = None
    """The prices in force while this load was measured."""
    delay_ticks: FloatArray | None = None
    """Ticks from a price to the load that answers it."""
    elasticity: FloatArray | None = None
    """By how many percent at most the load falls where the price rises by one."""
    fluid: FluidMarket | None = None
    """Who asks for what at which value, over the same endpoints."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.dt_s) and self.dt_s >= 0.0):
            raise SnapshotMalformed("a tick lasts a finite time, not below zero")
        size = len(self.bands)
        for name in ("load", "delay_ticks", "elasticity"):
            array = getattr(self, name)
            if array is not None and array.shape != (size,):
                raise SnapshotMalformed(f"{name} of shape {array.shape} for {size} endpoints")
        if self.fluid is not None and self.fluid.resource.size != size:
            raise SnapshotMalformed(f"a fluid of {self.fluid.resource.size} for {size} endpoints")

    def only(self, numbers: IntArray, bands: Bands) -> MarketSnapshot:
        """The same moment for these endpoints, renumbered in their order; `bands` are theirs."""
        if numbers.size == len(self.bands):  # numbers ascend, so these are all
            return replace(self, bands=bands)
        book = self.book
        if book is not None:
            book = book.only(numbers)
        return MarketSnapshot(
            self.at_s,
            self.dt_s,
            self.load[numbers],
            bands,
            book,
            None if self.delay_ticks is None else self.delay_ticks[numbers],
            None if self.elasticity is None else self.elasticity[numbers],
            None if self.fluid is None else self.fluid.only(numbers),
        )


@dataclass(frozen=True, slots=True, eq=False)
class OwnCounts:
    """What the broker itself saw, all processes together; arrays of one length."""

    in_flight: FloatArray
    refused_per_s: FloatArray
    mean_service_s: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Reports:
    """What providers say about themselves; `stale` marks reports too old to count."""

    running: FloatArray
    waiting: FloatArray
    stale: NDArray[np.bool_]


def utilization(own: OwnCounts, reports: Reports, capacity: FloatArray) -> FloatArray:
    """Load per endpoint or deployment, as the module says; a capacity below 1 counts as 1.

    A report that is stale, negative or not finite adds nothing.
    """
    slots = np.maximum(capacity, 1.0)
    # A report may claim inf and -inf at once, or two numbers whose sum is beyond all numbers.
    with np.errstate(invalid="ignore", over="ignore"):
        reported = np.asarray(reports.running, dtype=np.float64) + reports.waiting
    usable = ~reports.stale & np.isfinite(reported)
    beyond = np.where(usable, reported, 0.0) - own.in_flight
    by_own = np.maximum(1.0, REPORT_SHARE_OF_OWN * own.in_flight)
    allowed = np.minimum(by_own, REPORT_SHARE_OF_CAPACITY * slots)
    report = np.clip(beyond, 0.0, allowed)
    refused = own.refused_per_s * own.mean_service_s
    load: FloatArray = (own.in_flight + report + refused) / slots
    return load
