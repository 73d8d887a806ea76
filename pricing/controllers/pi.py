"""Proportional and integral control of the logarithm of the price.

    e = load - target
    I <- clip(I + ki * e * dt, ln(floor / list), ln(ceiling / list))
    ln(p / list) = clip(I + kp * e, the same bounds)

The textbook controller (Astrom & Hagglund, "Advanced PID Control", ISA 2006, chapter 3) with the
integral clamped where the price is, so that nothing winds up: at the ceiling, load under target
lowers the price in the same tick. Where I alone moves, `ki` is 1 / K of cumulative excess load; the
proportional part answers a rush at once, and gives it back when the rush is over.

The gain guard bounds both parts, each by what it can do: what the proportional part pushes it gives
back with the load, and so, other than the integral, it may be as strong under a long delay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray, PriceBook, ProposedRates
from pricing.guardrails import kick_shares
from pricing.scarcity import fitted, rates_at, scarcity_of
from pricing.snapshot import Bands, MarketSnapshot


@dataclass(frozen=True, slots=True, eq=False)
class PiState:
    """I by endpoint number; NaN where no endpoint was in the market."""

    integral: FloatArray


@dataclass(frozen=True, slots=True)
class ProportionalIntegral:
    """The controller. The defaults add to what cumulative excess load does 5% at full load."""

    target: float = 0.7
    """The load at which a price stands still."""
    kp: float = 0.15
    """ln price for each unit of load above target, at once."""
    ki_per_s: float = 1.0 / 60.0
    """ln price for each unit of load above target, each second."""
    load_cap: float = 8.0
    """Load beyond this counts as this."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.kp) and self.kp >= 0.0):
            raise ValueError("kp is finite and not below zero")
        if not (math.isfinite(self.ki_per_s) and self.ki_per_s > 0.0):
            raise ValueError("ki is finite and above zero")
        if not 0.0 < self.target < self.load_cap:
            raise ValueError("the target lies between zero and the load cap")

    def resume(self, book: PriceBook, bands: Bands) -> PiState:
        """The state whose price is the book's while the load is at target."""
        return PiState(scarcity_of(book, bands))

    def step(self, state: PiState, snapshot: MarketSnapshot) -> tuple[PiState, ProposedRates]:
        """One tick for all endpoints. One that is new to the state begins at its list price; a
        load that is not finite counts as the target, one below zero as zero."""
        bands = snapshot.bands
        before = fitted(state.integral, len(bands))
        load = np.where(np.isfinite(snapshot.load), snapshot.load, self.target)
        error = np.clip(load, 0.0, self.load_cap) - self.target
        push = self.ki_per_s * snapshot.dt_s
        shares = kick_shares(self.target * self.kp, self.target * push, snapshot)
        low, high = bands.reach
        newcomer = np.isnan(before)
        moved = before + shares[1] * push * error
        integral = np.clip(np.where(newcomer, 0.0, moved), low, high)
        kick = np.where(newcomer, 0.0, shares[0] * self.kp * error)
        rates = rates_at(bands, np.clip(integral + kick, low, high))
        return PiState(np.where(bands.present, integral, np.nan)), ProposedRates(rates)
