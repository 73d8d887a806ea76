"""Decides about many calls together, each as `route` would on the same counts.

Calls that bring a prompt, a conversation or the value of their answer are for `route` alone.

    crowd = Crowd(asked, grid, pulse, limits, now_s)
    decisions = route_many(crowd)

What a call takes is not there for the next of the same part; who minds cuts the crowd into parts,
and tells `pulse` of one before it asks for the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from broker.core.candidates.scoring import NEAR_BEST
from broker.core.candidates.servers import ON_ONE_SERVER
from broker.core.columns import Bools, Floats, Numbers
from broker.core.many.crowd import ALL, Crowd, Part, of_each
from broker.core.many.grid import Grid
from pricing.money import PICOS_PER_NANO

NOBODY = -1
_SUMMED_AT_ONCE_MAX = 64
"""Sums over so many columns are faster as a product with a matrix."""


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Where calls go and what that can cost at most; arrays of one shape, 0 where nobody is."""

    numbers: Numbers
    """Endpoint numbers; NOBODY for none."""
    tokens_out_max: Numbers
    ceiling_nanos: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class Decisions:
    """What is decided of a part of a crowd, a row for each call."""

    crowd: Crowd
    part: slice
    load: Floats
    """(endpoints of the grid,): what was decided on."""
    scores: Floats
    first: Numbers
    """(calls,): the column of the grid where it goes; NOBODY where it may go nowhere."""

    @property
    def refused(self) -> Numbers:
        """The rows of calls that may go nowhere."""
        rows: Numbers = (self.first == NOBODY).nonzero()[0]
        return rows

    def reasons(self) -> Numbers:
        """(refused, endpoints of the grid): a Rejection each, 0 for who was not considered."""
        rows = np.arange(self.crowd.asked.size)[self.part][self.refused]
        return self.crowd.reasons(self.load, rows)

    def plan(self, attempts: int) -> Numbers:
        """(calls, attempts): columns in the order in which they are to be tried, then NOBODY."""
        rows = np.arange(self.first.size)
        plan = np.full((self.first.size, attempts), NOBODY)
        if not self.scores.size:
            return plan
        left, grid = _wished(self.crowd, self.scores, self.part), self.crowd.grid
        counts = np.zeros((rows.size, grid.deployments.size), dtype=np.int64)
        for attempt in range(min(attempts, left.shape[1])):
            best = left.argmax(axis=1) if attempt else np.maximum(self.first, 0)
            if attempt and grid.shared:
                best = self._elsewhere(left, counts[:, grid.servers], best)
            plan[:, attempt] = np.where(left[rows, best] > -np.inf, best, NOBODY)
            left[rows, best] = -np.inf
            counts[rows, grid.servers[best]] += 1
        return plan

    def _elsewhere(self, left: Floats, counts: Numbers, best: Numbers) -> Numbers:
        """Return the best that is on no server that is in a plan too often, where there is one, and
        the caller has no order of its own."""
        others = np.where(counts >= ON_ONE_SERVER, -np.inf, left)
        found = others.argmax(axis=1)
        stays = of_each(others, found) == -np.inf
        if self.crowd.is_wishful:
            stays |= self.crowd.grid.wishful[self.crowd.asked.kind[self.part]]
        return np.where(stays, best, found)


def route_many(crowd: Crowd, part: slice = ALL) -> Decisions:
    """Decide about a part of a crowd. Nothing is told to its pulse."""
    grid, load = crowd.grid, crowd.loads()
    width, size = grid.numbers.size, crowd.asked.kind[part].size
    if not width:
        return Decisions(crowd, part, load, np.empty((size, 0)), np.full(size, NOBODY))
    scores = crowd.scores(load, part)
    best = of_each(scores, scores.argmax(axis=1))
    near = scores >= (best * (1 - NEAR_BEST))[:, np.newaxis]
    free = np.where(near, np.maximum(1.0 - load, 0.01) * grid.capacity, 0.0)
    if grid.shared:
        free /= np.maximum(_of_servers(near, grid)[:, grid.servers], 1)
    sums = free @ _up_to(width) if width <= _SUMMED_AT_ONCE_MAX else free.cumsum(axis=1)
    drawn = crowd.asked.chance[part] * sums[:, -1]
    first = (sums > drawn[:, np.newaxis]).argmax(axis=1)
    if crowd.is_wishful:
        wishful = grid.wishful[crowd.asked.kind[part]]
        first = np.where(wishful, _wished(crowd, scores, part).argmax(axis=1), first)
    first[best == -np.inf] = NOBODY
    return Decisions(crowd, part, load, scores, first)


def terms(crowd: Crowd, columns: Numbers, part: Part = ALL) -> Terms:
    """Return what it means for each call of a part to go to these columns of the grid, of shape
    (calls,) or (calls, attempts). Costs must stay below 2^63 pico-dollars."""
    asked, grid = crowd.asked, crowd.grid
    if not grid.numbers.size:
        none = np.zeros(columns.shape, dtype=np.int64)
        return Terms(none + NOBODY, none, none)
    table = columns if columns.ndim > 1 else columns[:, np.newaxis]
    there = table != NOBODY
    numbers = np.append(grid.numbers, NOBODY)[table]
    limits = crowd.tokens_out[part]
    if limits.shape[1] > 1:
        limits = np.take_along_axis(limits, table, axis=1)
    limits = limits * there
    rate_in, rate_out, rate_call = grid.rates[:, asked.kind[part, np.newaxis], table]
    picos = asked.tokens_in_bound[part, np.newaxis] * rate_in
    picos += crowd.choices[part] * limits * rate_out
    picos += rate_call * PICOS_PER_NANO
    ceiling = -(-picos // PICOS_PER_NANO) * there
    return Terms(*(each.reshape(columns.shape) for each in (numbers, limits, ceiling)))


def _wished(crowd: Crowd, scores: Floats, part: slice) -> Floats:
    """The scores, less what a place in the caller's order of providers weighs."""
    if not crowd.is_wishful:
        return scores.copy()
    wished: Floats = scores - 4 * crowd.grid.wishes[crowd.asked.kind[part]]
    return wished


def _of_servers(near: Bools, grid: Grid) -> Numbers:
    """(calls, servers): how many of those near the best are on each."""
    calls, columns = near.nonzero()
    width = grid.deployments.size
    counts = np.bincount(calls * width + grid.servers[columns], minlength=len(near) * width)
    return counts.reshape(len(near), width)


@lru_cache(maxsize=_SUMMED_AT_ONCE_MAX)
def _up_to(size: int) -> Floats:
    """Of shape (size, size): 1 where the row is not after the column."""
    return np.triu(np.ones((size, size)))
