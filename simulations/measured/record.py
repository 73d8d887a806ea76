"""What a run returns: columnar tables, sums and histograms, none of which grows with the horizon.

Sums and histograms count every call that arrives after the warm-up. The tables of ticks and calls
are for plots: the first merges neighbours where it grows too long, the second keeps a fair sample.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = Mapping[str, NDArray[Any]]
"""Columns of one length, by name."""


class Code(enum.IntEnum):
    """How a call ended. Served + refused + failed is all calls that ended."""

    SERVED = 0
    STAYED_AWAY = 1
    """The caller looked at price or wait and did not call; it counts as refused."""
    PRICED_OUT = 2
    FULL = 3
    AWAY = 4
    UNFIT = 5
    """No endpoint has what is asked for: model, tier, context, quality."""
    NO_FUNDS = 6
    """The hold fits no balance: the budget is spent."""
    FAILED = 7
    """Every attempt failed."""
    LATE = 8
    """The deadline passed before the answer was whole."""
    CUT = 9
    """The answer broke off after its first content."""

    @property
    def refused(self) -> bool:
        """True where no attempt was made."""
        return Code.STAYED_AWAY <= self <= Code.NO_FUNDS

    @property
    def failed(self) -> bool:
        """True where attempts were made and no whole answer came."""
        return self >= Code.FAILED


CODES = len(Code)

CALL_COLUMNS: Mapping[str, type] = {
    "consumer_class": np.int16,
    "arrival_s": np.float64,
    "code": np.int8,
    "endpoint": np.int16,  # of the last attempt; -1 for none
    "ttft_s": np.float64,  # NaN where no content came
    "e2e_s": np.float64,
    "tokens_in": np.int64,  # as charged
    "tokens_out": np.int64,
    "charge_nanos": np.int64,
    "take_nanos": np.int64,
    "cost_nanos": np.float64,  # of serving it, to the provider
    "offer_nanos": np.float64,  # what the call was worth before it was made
    "worth_nanos": np.float64,  # what its answer was worth, delay taken off; 0 where none came
    "attempts": np.int16,
}

TICK_COLUMNS: Mapping[str, type] = {
    "at_s": np.float64,  # end of the interval that the row is a mean over
    "endpoint": np.int16,
    "price_in_micros": np.float64,
    "price_out_micros": np.float64,
    "price_call_nanos": np.float64,
    "load": np.float64,  # as the controller was told
    "utilisation": np.float64,  # calls in service over capacity, as it was
    "queue": np.float64,
    "refused": np.float64,  # calls that found it full, in the interval
    "served": np.float64,  # calls whose answer was whole, in the interval
    "present": np.float64,
}

DEMAND_COLUMNS: Mapping[str, type] = {
    "at_s": np.float64,
    "consumer_class": np.int16,
    "offered": np.float64,  # calls in the interval
    "served": np.float64,
    "offer_nanos": np.float64,
    "worth_nanos": np.float64,
}


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts in bins whose edges grow by a constant factor; `edges_s` has one more than bins.

    The first bin also holds what is below it, the last what is above it. Quantiles are exact to
    half of a bin, about 2%.
    """

    edges_s: NDArray[np.float64]
    counts: NDArray[np.int64]
    sum_s: float

    @property
    def total(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    @property
    def mean_s(self) -> float:
        """Exact; NaN of none."""
        return self.sum_s / self.total if self.total else float("nan")

    def quantile_s(self, share: float) -> float:
        """The value that `share` of them do not exceed; NaN of none."""
        reached = np.cumsum(self.counts)
        if not reached[-1]:
            return float("nan")
        place = int(np.searchsorted(reached, share * reached[-1]))
        place = min(place, self.counts.size - 1)
        return float(np.sqrt(self.edges_s[place] * self.edges_s[place + 1]))

    def share_below(self, limit_s: float) -> float:
        """Which share is within a limit; NaN of none."""
        reached = np.concatenate(([0], np.cumsum(self.counts)))
        if not reached[-1]:
            return float("nan")
        return float(np.interp(limit_s, self.edges_s, reached) / reached[-1])


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """Sums over all calls that arrived after the warm-up, by class and endpoint.

    Arrays of shape (classes, endpoints + 1); the last column is calls without an endpoint. Money is
    nano-dollars.
    """

    calls: NDArray[np.int64]
    """Of shape (classes, endpoints + 1, CODES), by the code of the last attempt's end."""
    attempts: NDArray[np.int64]
    tokens_in: NDArray[np.int64]
    tokens_out: NDArray[np.int64]
    charge_nanos: NDArray[np.int64]
    take_nanos: NDArray[np.int64]
    cost_nanos: NDArray[np.float64]
    offer_nanos: NDArray[np.float64]
    worth_nanos: NDArray[np.float64]

    def count(self, *codes: Code) -> int:
        """Calls with one of these codes; of all codes where none is named."""
        chosen = list(codes) or list(Code)
        return int(self.calls[:, :, chosen].sum())


@dataclass(frozen=True, slots=True, eq=False)
class PriceMoves:
    """How restless prices were after the warm-up, by endpoint, counted at every tick."""

    ticks: int
    tick_s: float
    sum_squares: NDArray[np.float64]
    """Of the change of ln price from tick to tick."""
    reversals: NDArray[np.int64]
    """How often a rise followed a fall, or a fall a rise."""
    swings: NDArray[np.int64]
    """How often it turned by more than `turns.SWING` from the highest or lowest it had come to."""

    @property
    def sigma(self) -> NDArray[np.float64]:
        """The standard deviation of the change of ln price in a tick, its mean taken for zero."""
        return np.asarray(np.sqrt(self.sum_squares / max(self.ticks, 1)), dtype=np.float64)

    @property
    def reversals_per_h(self) -> NDArray[np.float64]:
        """Reversals an hour."""
        return self._per_h(self.reversals)

    @property
    def swings_per_h(self) -> NDArray[np.float64]:
        """Swings an hour."""
        return self._per_h(self.swings)

    def _per_h(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        hours = max(self.ticks * self.tick_s, 1.0) / 3_600.0
        return np.asarray(counts / hours, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Money:
    """The books at the end, over the whole run with its warm-up, in nano-dollars.

    deposited = balances + held + earned + taken, whatever happened.
    """

    deposited_nanos: int
    balances_nanos: int
    held_nanos: int
    earned_nanos: NDArray[np.int64]
    """By provider, in the scenario's order."""
    taken_nanos: int

    @property
    def is_conserved(self) -> bool:
        """True, or the books are broken."""
        kept = self.balances_nanos + self.held_nanos + self.taken_nanos
        return self.deposited_nanos == kept + int(self.earned_nanos.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run of a scenario."""

    scenario: str
    seed: int
    ended_s: float
    """The horizon, or less where it was stopped before."""
    counted_s: float
    """From the warm-up to the end."""
    endpoint_names: tuple[str, ...]
    provider_names: tuple[str, ...]
    provider_of: NDArray[np.int64]
    """By endpoint."""
    totals: Totals
    ttft: tuple[Histogram, ...]
    """By class, of calls that were served."""
    tpot: tuple[Histogram, ...]
    e2e: tuple[Histogram, ...]
    moves: PriceMoves
    mean_load: NDArray[np.float64]
    """By endpoint, over its ticks after the warm-up, as the controller was told."""
    mean_utilisation: NDArray[np.float64]
    present_s: NDArray[np.float64]
    """By endpoint, of `counted_s`."""
    server_cost_nanos: NDArray[np.float64]
    """By endpoint, what its server cost while it was present, busy or not."""
    money: Money
    arrived: int
    """Calls from the beginning on; each is in `ended` or `under_way`, which are counted apart."""
    ended: int
    under_way: int
    incidents: tuple[str, ...]
    """Controllers that were replaced by the posted price, and why; the first hundred."""
    ticks: Table
    demand: Table
    calls: Table
    cpu_s: float
    """Processor time that it took; the one figure that differs between two runs of a seed."""
