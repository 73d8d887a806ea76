"""A short shortlist in plain numbers, and what is remembered of those left when some are struck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers
from broker.core.requirements import Weights
from broker.core.standing import Standing
from pricing.book import Rate

HANDFUL_MAX = 24
"""Of more, arrays are sooner done with."""
REMEMBERED_MAX = 256
"""Callers pay and weigh as they like, so what is remembered of one shortlist has an end."""
Row = Sequence[float]
Cut = Callable[[Sequence[Any]], Sequence[Any]]
"""Takes some numbers out of a column."""
Rates = tuple[float, float, float]
"""Pico-dollars per token in, per token out, per call."""


class Handful(msgspec.Struct, frozen=True, eq=False):
    """A few endpoints that meet the terms of a call; columns are aligned."""

    places: tuple[int, ...]
    """In the shortlist."""
    numbers: Numbers
    numbered: tuple[int, ...]
    """The same in plain numbers."""
    standing: Standing
    """Of all on the shortlist;"""
    cut: Cut | None
    """cuts these out of a column of those. None: these are all."""
    rates: tuple[Rate, ...]
    rates_picos: tuple[Rates, ...]
    servers: tuple[int, ...] | None
    """As of a shortlist."""
    capacity: tuple[float, ...]
    quality: tuple[float, ...]
    domain_fit: tuple[float, ...]
    rejected: Numbers
    """Endpoints that are not among them any more."""
    reasons: Numbers
    """A Rejection for each of `rejected`."""
    cheapest: Rates
    """No endpoint has a lower rate,"""
    dearest: Rates
    """and none a higher one."""
    left: dict[tuple[int, ...], Handful]
    """Those not struck, by the Rejection of each, 0 for who was not; filled on first use."""
    weighed: dict[Weights, tuple[tuple[float, ...], float, float, float]]
    """What the terms make of the score, and the weights of its other parts; filled on first use."""

    def without(self, struck: tuple[int, ...]) -> Handful:
        """Return those not struck; `struck` has a Rejection or 0 for each of a whole shortlist."""
        found = self.left.get(struck)
        if found is None:
            if len(self.left) >= REMEMBERED_MAX:
                self.left.clear()
            found = self.left[struck] = self._only(struck)
        return found

    def _only(self, struck: tuple[int, ...]) -> Handful:
        reasons = np.array(struck)
        kept, refused = (reasons == 0).nonzero()[0], reasons.nonzero()[0]
        places = kept.tolist()
        numbers = self.numbers[kept]
        return Handful(
            places=tuple(places),
            numbers=numbers,
            numbered=tuple(numbers.tolist()),
            standing=self.standing,
            cut=cut_of(places),
            rates=tuple(self.rates[place] for place in places),
            rates_picos=tuple(self.rates_picos[place] for place in places),
            servers=self.servers and tuple(self.servers[place] for place in places),
            capacity=tuple(self.capacity[place] for place in places),
            quality=tuple(self.quality[place] for place in places),
            domain_fit=tuple(self.domain_fit[place] for place in places),
            # Those that came nearest to being eligible are told first.
            rejected=np.concatenate((self.numbers[refused], self.rejected)),
            reasons=np.concatenate((reasons[refused], self.reasons)),
            cheapest=self.cheapest,
            dearest=self.dearest,
            left={},
            weighed={},
        )


def cut_of(numbers: Sequence[int]) -> Cut:
    """Return what takes these out of a column, as plain numbers: in C."""
    if len(numbers) > 1:
        return itemgetter(*numbers)
    return lambda column: tuple([column[number] for number in numbers])


class Workings(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a decision among a few was made by; rows are aligned with the columns of `few`."""

    few: Handful
    scores: Row
    cost: Row
    """Expected, in pico-dollars."""
    latency: Row
    """Expected, in milliseconds."""
    soon_ms: float
    """Who takes no longer counts as soon."""
    room: Row
    """The part of the score that goes by availability."""
    near: Sequence[int]
    """The places of those near the best, one of whom comes first,"""
    free: Row
    """and the free capacity of each, by which that is drawn."""

    def figures(self) -> Floats:
        """Return the rows of `Decision.figures`, which few look at."""
        cost, latency = np.array(self.cost), np.array(self.latency)
        chances = np.zeros(cost.size)
        total = list(accumulate(self.free))[-1]  # as it was drawn by
        chances[self.near] = np.array(self.free) / total
        soon = np.minimum(self.soon_ms / latency, 1.0)
        parts = (cost.min() / cost, soon, self.room)
        return np.array((self.scores, self.few.quality, self.few.domain_fit, *parts, cost, chances))
