"""Finds the prices at which the market would clear now, and those that would earn the most: the
yardsticks beside the prices in force.

The first are marginal cost plus work times what one more slot is worth to the whole fleet, the
others one price at a time for all who ask for the same model, both by the linear programs of
`pricing.equilibrium`, for the demand that load and prices of this moment tell of. No price follows
from them here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from broker.flows.market.measure import ground_of, infer_fluid
from broker.flows.market.read_prices import Listing
from pricing.book import FloatArray, PriceBook, Rate
from pricing.classes import VALUES
from pricing.equilibrium import EquilibriumUnsolved, revenue_optimum, welfare_optimum
from pricing.fluid import FluidMarket
from pricing.snapshot import Bands

SOLD_SHARE: Final = 0.8
"""Of capacity, as the controller of shadow prices sells it: all would be a queue without end."""
ELASTICITY: Final = 1.5
"""Of demand, where it is not measured."""


PRICES: Final = 12
"""Of a menu for all who ask for the same."""
EARNING_ARCS_MAX: Final = 2_000
"""In a larger fleet, what would earn the most is not looked for: it takes seconds."""


@dataclass(frozen=True, slots=True)
class Equilibrium:
    """Rates by endpoint number, within the bands; none where nothing was found."""

    clearing: Mapping[int, Rate] = field(default_factory=dict)
    earning: Mapping[int, Rate] = field(default_factory=dict)


def find_equilibrium(listings: Sequence[Listing], book: PriceBook) -> Equilibrium:
    """Find both; neither of a fleet too large to be solved beside other work, nor where the solver
    gives up. It may take some hundred milliseconds."""
    priced = [each for each in listings if each.rate is not None]
    if not priced:
        return Equilibrium()
    ground = ground_of([each.endpoint for each in priced])
    size = len(ground.bands)
    load = np.zeros(size)
    for each in priced:
        load[each.endpoint.number] = each.load
    inferred = infer_fluid(ground, load, book, np.full(size, ELASTICITY))
    if inferred is None or inferred.rate_work is None:
        return Equilibrium()
    fluid = replace(inferred, capacity=SOLD_SHARE * inferred.capacity)
    numbers = [each.endpoint.number for each in priced]
    try:
        best = welfare_optimum(fluid)
        clearing = ground.bands.floor + inferred.rate_work * best.congestion[fluid.resource]
        earning = _earning(fluid, ground.bands)
    except EquilibriumUnsolved:
        return Equilibrium()
    return Equilibrium(
        _within(ground.bands, clearing, numbers),
        {} if earning is None else _within(ground.bands, earning, numbers),
    )


def _earning(fluid: FluidMarket, bands: Bands) -> FloatArray | None:
    """The rates that would earn the most after cost, of shape (3, endpoints); NaN where nobody
    asks, and None of a fleet that is too large."""
    if fluid.value.size > EARNING_ARCS_MAX:
        return None
    families = np.arange(fluid.wanted.size) // VALUES
    best = revenue_optimum(fluid, families, PRICES)
    share = best.price_share
    stands = share.sum(axis=1)
    priced = np.where(np.isfinite(best.menu), best.menu, 0.0)
    price = np.full(stands.size, np.nan)
    np.divide((share * priced).sum(axis=1), stands, out=price, where=stands > 0.0)
    of_endpoint = np.full(fluid.resource.size, np.nan)
    of_endpoint[fluid.arc_endpoint] = price[families[fluid.arc_class]]
    listed = bands.listed.sum(axis=0, dtype=np.float64)
    return bands.listed * (of_endpoint / np.where(listed > 0.0, listed, np.nan))


def _within(bands: Bands, rates: FloatArray, numbers: Sequence[int]) -> dict[int, Rate]:
    known = [number for number in numbers if np.isfinite(rates[:, number]).all()]
    held = np.rint(np.clip(rates, bands.floor, bands.ceiling)[:, known]).astype(np.int64)
    return {number: Rate(*held[:, at].tolist()) for at, number in enumerate(known)}
