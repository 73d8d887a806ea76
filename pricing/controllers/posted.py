"""The posted price: every endpoint at its list price, the static market all others must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pricing.book import PriceBook, ProposedRates
from pricing.snapshot import Bands, MarketSnapshot


@dataclass(frozen=True, slots=True)
class Posted:
    """A controller without state."""

    def resume(self, book: PriceBook, bands: Bands) -> None:
        """Nothing to go on from."""

    def step(self, state: None, snapshot: MarketSnapshot) -> tuple[None, ProposedRates]:
        """The list prices, whatever the load."""
        return state, ProposedRates(snapshot.bands.listed.astype(np.float64))
