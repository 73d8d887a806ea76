"""Small markets for the tests of prices, and Hypothesis strategies that make them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from pricing.book import FloatArray, PriceBook
from pricing.snapshot import Bands, MarketSnapshot

Row = tuple[int, ...]

TOKENS: Row = (1_000_000, 2_000_000, 8_000_000, 2_000_000, 4_000_000, 16_000_000, 0, 0, 0)
"""Floor 1, list 2, ceiling 8 USD per Mtok in, twice that out."""
BY_CALL: Row = (0, 0, 0, 0, 0, 0, 500_000, 1_000_000, 3_000_000)


def bands(*rows: Row) -> Bands:
    """Bands of endpoints 0, 1, ..."""
    return Bands.from_rows(dict(enumerate(rows)))


def snapshot(load: float | list[float], of: Bands, dt_s: float = 1.0) -> MarketSnapshot:
    """One tick at one load for all, or a load for each."""
    return MarketSnapshot(0.0, dt_s, _loads(load, len(of)), of)


def list_book(of: Bands, version: int = 1) -> PriceBook:
    """Everything at list price."""
    return PriceBook.from_matrix(version, of.listed)


def _loads(load: float | list[float], size: int) -> FloatArray:
    return np.broadcast_to(np.asarray(load, dtype=np.float64), (size,)).copy()


def _component(maximum: int) -> st.SearchStrategy[list[int]]:
    priced = st.lists(st.integers(1, maximum), min_size=3, max_size=3).map(sorted)
    return st.just([0, 0, 0]) | priced


rows = st.tuples(_component(10**12), _component(10**12), _component(10**15)).map(
    lambda parts: tuple(value for part in parts for value in part)
)
"""Any sound band, also one that prices nothing."""

markets = st.lists(rows, min_size=1, max_size=5).map(lambda some: bands(*some))
