"""Calls that are about to be decided on, in columns: those that come, and those that come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray, IntArray
from simulations.columns import Columns
from simulations.demand import ConsumerClass
from simulations.traffic.callers import Callers, Calls


@dataclass(slots=True, eq=False)
class Askers(Columns):
    """Calls by the moment at which they ask."""

    place: IntArray
    """Of their class in the scenario."""
    arrival_s: FloatArray
    at_s: FloatArray
    """When they ask; later than the arrival where they were turned away before."""
    tokens_in: IntArray
    tokens_out: IntArray
    offer_nanos: FloatArray
    account: IntArray
    tries: IntArray
    """How often they were turned away."""

    @property
    def size(self) -> int:
        """How many."""
        return self.place.size


class Queue:
    """All calls of a run, handed out slice by slice."""

    def __init__(
        self, callers: Callers, classes: tuple[ConsumerClass, ...], first_account: list[int]
    ) -> None:
        self.arrived = 0
        """Those handed out for the first time."""
        self._drawn = 0
        self._callers = callers
        self._first_account = np.array(first_account, dtype=np.int64)
        self._accounts = np.array([each.accounts for each in classes], dtype=np.int64)
        self._blocks: Iterator[Calls] = iter(())
        self._known = self._askers(callers.until(0.0))
        self._next = 0
        self._back = self._known

    def open(self, horizon_s: float) -> None:
        """Let calls come up to a horizon."""
        self._blocks = self._callers.blocks(horizon_s)

    def until(self, to_s: float) -> tuple[Askers, Askers]:
        """(who comes, who comes back) before `to_s`, each by time."""
        known = self._known
        while not known.size or known.at_s[-1] < to_s:
            block = next(self._blocks, None)
            if block is None:
                break
            known = known.only(slice(self._next, None)).and_then(self._askers(block))
            self._known, self._next = known, 0
        begin, self._next = self._next, int(np.searchsorted(known.at_s, to_s))
        self.arrived += self._next - begin
        fresh, back = known.only(slice(begin, self._next)), self._back
        if back.size:
            due = back.at_s < to_s
            self._back, back = back.only(~due), back.only(due)
            back = back.only(back.at_s.argsort(kind="stable"))
        return fresh, back

    @property
    def coming_back(self) -> int:
        """How many will ask again."""
        return int(self._back.size)

    def come_back(self, askers: Askers) -> None:
        """Let calls ask again, at their `at_s`."""
        self._back = self._back.and_then(askers)

    def _askers(self, calls: Calls) -> Askers:
        place, serial = calls.consumer_class, self._drawn + np.arange(calls.size)
        self._drawn += calls.size
        account = self._first_account[place] + serial % self._accounts[place]
        none = np.zeros(calls.size, dtype=np.int64)
        return Askers(
            place,
            calls.arrival_s,
            calls.arrival_s,
            calls.tokens_in,
            calls.tokens_out,
            calls.offer_nanos,
            account,
            none,
        )
