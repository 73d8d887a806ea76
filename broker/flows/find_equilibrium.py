"""Finds the prices at which the market would clear now: the yardstick beside the prices in force.

They are marginal cost plus work times what one more slot is worth to the whole fleet, by the linear
program of `pricing.equilibrium`, for the demand that load and prices of this moment tell of. No
price follows from it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from broker.flows.measure import ground_of, infer_fluid
from broker.flows.read_prices import Listing
from pricing.book import PriceBook, Rate
from pricing.equilibrium import EquilibriumUnsolved, welfare_optimum

SOLD_SHARE: Final = 0.8
"""Of capacity, as the controller of shadow prices sells it: all would be a queue without end."""
ELASTICITY: Final = 1.5
"""Of demand, where it is not measured."""


def find_equilibrium(listings: Sequence[Listing], book: PriceBook) -> dict[int, Rate]:
    """Return rates by endpoint number, within the bands; none of a fleet too large to be solved
    beside other work, and none where the solver gives up. It may take some hundred milliseconds."""
    priced = [each for each in listings if each.rate is not None]
    if not priced:
        return {}
    ground = ground_of([each.endpoint for each in priced])
    size = len(ground.bands)
    load = np.zeros(size)
    for each in priced:
        load[each.endpoint.number] = each.load
    fluid = infer_fluid(ground, load, book, np.full(size, ELASTICITY))
    if fluid is None or fluid.rate_work is None:
        return {}
    try:
        best = welfare_optimum(replace(fluid, capacity=SOLD_SHARE * fluid.capacity))
    except EquilibriumUnsolved:
        return {}
    bands = ground.bands
    wanted = bands.floor + fluid.rate_work * best.congestion[fluid.resource]
    rates = np.rint(np.clip(wanted, bands.floor, bands.ceiling)).astype(np.int64)
    return {each.endpoint.number: Rate(*rates[:, each.endpoint.number].tolist()) for each in priced}
