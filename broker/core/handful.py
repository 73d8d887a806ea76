"""A short shortlist in plain numbers, and what is remembered of those left when some are struck."""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers, as_index
from broker.core.requirements import Weights
from pricing.book import Rate

HANDFUL_MAX = 24
"""Of more, arrays are sooner done with."""
REMEMBERED_MAX = 256
"""Callers pay and weigh as they like, so what is remembered of one shortlist has an end."""
Rates = tuple[float, float, float]
"""Pico-dollars per token in, per token out, per call."""


class Handful(msgspec.Struct, frozen=True, eq=False):
    """A few endpoints that meet the terms of a call; columns are aligned."""

    places: tuple[int, ...]
    """In the shortlist."""
    numbers: Numbers
    deployments: Numbers
    at: slice | Numbers
    """The numbers as an index."""
    deployments_at: slice | Numbers
    capacities: Floats
    rates: tuple[Rate, ...]
    rates_picos: tuple[Rates, ...]
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
        """Return those not struck; `struck` has a Rejection or 0 for each."""
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
        numbers, deployments = self.numbers[kept], self.deployments[kept]
        return Handful(
            places=tuple(places),
            numbers=numbers,
            deployments=deployments,
            at=as_index(numbers),
            deployments_at=as_index(deployments),
            capacities=self.capacities[kept],
            rates=tuple(self.rates[place] for place in places),
            rates_picos=tuple(self.rates_picos[place] for place in places),
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
