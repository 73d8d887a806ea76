"""Cumulative excess load: the price is an exponential of how much more than its target was asked.

    E <- clip(E + (load - target) * dt, 0, K * ln(ceiling / floor))
    p  = floor * exp(E / K),            E starts at K * ln(list / floor), so p at the list price

This is the blob base fee of EIP-4844 (Buterin et al., 2022: fee = minimum * exp(excess / fraction))
with a ceiling, and with time in place of blocks. Because E adds up load-seconds, the price depends
on the load there was and not on how it was cut into ticks; because E is clipped where the price is,
nothing winds up at either bound.

An endpoint's three rates move together. E is therefore kept as its distance from the start,
X = E - K * ln(list / floor), and each rate is list * exp(X / K) inside its own band; X runs as far
as the widest of the three bands. X / K is the logarithm of the scarcity over the list price, so a
provider who changes its list price keeps the scarcity that its load has earned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray, PriceBook, ProposedRates
from pricing.guardrails import gain_share
from pricing.scarcity import fitted, rates_at, scarcity_of
from pricing.snapshot import Bands, MarketSnapshot


@dataclass(frozen=True, slots=True, eq=False)
class ExcessState:
    """X in load-seconds by endpoint number; NaN where no endpoint was in the market."""

    excess_s: FloatArray


@dataclass(frozen=True, slots=True)
class ExcessLoad:
    """The controller. The defaults lift a price e-fold in about three minutes at full load without
    a queue, and let it fall e-fold in about 90 seconds when idle."""

    target: float = 0.7
    """The load at which a price stands still."""
    k_s: float = 60.0
    """K: the load-seconds above target that multiply the price by e."""
    load_cap: float = 8.0
    """Load beyond this counts as this, or one burst of refusals would outrun the largest step."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.k_s) and self.k_s > 0.0):
            raise ValueError("K is a finite number of load-seconds above zero")
        if not 0.0 < self.target < self.load_cap:
            raise ValueError("the target lies between zero and the load cap")

    def resume(self, book: PriceBook, bands: Bands) -> ExcessState:
        """The state whose price is the book's, up to rounding, so that a new leader goes on from
        what was last published. Endpoints without a price there begin at list."""
        return ExcessState(self.k_s * scarcity_of(book, bands))

    def step(
        self, state: ExcessState, snapshot: MarketSnapshot
    ) -> tuple[ExcessState, ProposedRates]:
        """One tick for all endpoints. One that is new to the state begins at its list price and
        moves from the next tick on; one without a band leaves it; a load that is not finite moves
        nothing, one below zero counts as zero."""
        bands = snapshot.bands
        before = fitted(state.excess_s, len(bands))
        load = np.where(np.isfinite(snapshot.load), snapshot.load, self.target)
        drift = (np.clip(load, 0.0, self.load_cap) - self.target) * snapshot.dt_s
        # At the target d(ln p) per tick is target * dt / K for each unit of d(ln load).
        drift *= gain_share(self.target * snapshot.dt_s / self.k_s, snapshot)
        low, high = bands.reach
        moved = np.where(np.isnan(before), 0.0, before + drift)
        excess = np.clip(moved, self.k_s * low, self.k_s * high)
        rates = rates_at(bands, excess / self.k_s)
        return ExcessState(np.where(bands.present, excess, np.nan)), ProposedRates(rates)
