"""Fluid markets for the tests of equilibria."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pricing.fluid import FluidMarket


def random_market(seed: int, classes: int, endpoints: int, served: float = 0.7) -> FluidMarket:
    """Each class can go to a share of the endpoints; about as much is wanted as can be done."""
    rng = np.random.default_rng(seed)
    work = rng.uniform(0.3, 3.0, (classes, endpoints))
    value = rng.gamma(4.0, 1.0, (classes, 1)) * rng.uniform(0.5, 1.5, (classes, endpoints))
    value[rng.random((classes, endpoints)) > served] = np.nan
    capacity = rng.integers(1, 9, endpoints).astype(float)
    wanted = rng.gamma(2.0, capacity.sum() / classes / 2.0, classes)
    return FluidMarket.dense(wanted, capacity, value, work, rng.uniform(0.0, 1.0, endpoints))


markets = st.builds(
    random_market, st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.floats(0, 1)
)
