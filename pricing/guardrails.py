"""What stands between any controller and the market: band, step, hysteresis, sanity, gain.

A controller may be wrong, wound up or broken; a published price may not. The stability bound is
that of x[t+1] = x[t] - g * x[t-delay], which is asymptotically stable exactly for
0 < g < 2 sin(pi / (2 (2 delay + 1))) (Levin & May, "A note on difference-delay equations",
Theoretical Population Biology 9, 1976).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pricing.book import FloatArray, IntArray, PriceBook, ProposedRates
from pricing.snapshot import Bands, MarketSnapshot

SAFE_SHARE = 0.5
"""Of the gain at which a loop begins to oscillate, no controller uses more."""


@dataclass(frozen=True, slots=True)
class Guardrails:
    """How far a price may move in one tick, and how little is not worth publishing."""

    max_step_ratio: float = 1.25
    """A rate ends a tick within [before / ratio, before * ratio], rounded outward."""
    hysteresis: float = 0.001
    """Moves smaller than this share of the price are not published."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.max_step_ratio) and self.max_step_ratio > 1.0):
            raise ValueError("the largest step is a finite ratio above 1")
        if not 0.0 <= self.hysteresis < 1.0:
            raise ValueError("hysteresis is a share from 0 to below 1")


def clamp(
    previous: PriceBook,
    proposed: ProposedRates,
    bands: Bands,
    version: int,
    limits: Guardrails = Guardrails(),
) -> PriceBook:
    """The book of `version` that is nearest to the proposal and allowed.

    A rate without a previous price moves from its list price. NaN, infinite or negative proposals
    leave an endpoint where it was. The band has the last word: where it moved away from the price,
    the price jumps into it. Raises ValueError on a proposal whose shape is not that of the bands.
    """
    wanted = proposed.rates
    if wanted.shape != bands.floor.shape:
        raise ValueError(f"proposed {wanted.shape}, but the bands have {bands.floor.shape}")
    before = previous.matrix(len(bands))
    rates = np.empty(before.shape, dtype=np.int64)
    for start in range(0, len(bands), _BLOCK):
        at = slice(start, start + _BLOCK)
        bounds = (bands.floor[:, at], bands.listed[:, at], bands.ceiling[:, at])
        rates[:, at] = _clamped(before[:, at], wanted[:, at], bounds, limits)
    return PriceBook.from_matrix(version, rates)


_BLOCK = 4_096
"""Endpoints at a time: what is worked on stays in the processor's cache, and takes a third."""


def _clamped(
    before: IntArray,
    wanted: FloatArray,
    bounds: tuple[IntArray, IntArray, IntArray],
    limits: Guardrails,
) -> FloatArray:
    """The rates to publish; `bounds` are floor, list and ceiling."""
    floor, listed, ceiling = bounds
    anchor = np.where(before > 0, before, listed).astype(np.float64)
    priced = ceiling > 0
    nonsense = (~np.isfinite(wanted) | (wanted < 0.0)) & priced
    usable = priced & ~nonsense.any(axis=0)
    stepped = _stepped(anchor, np.where(usable, wanted, anchor), limits.max_step_ratio)
    bounded = np.clip(stepped, floor, ceiling)
    moved = _worth_publishing(anchor, bounded, (floor, ceiling), limits.hysteresis)
    return np.where(moved, bounded, anchor)


def gain_limit(tau_ticks: int) -> float:
    """The gain times demand elasticity at which a loop with this delay begins to oscillate.

    For 0, 1, 2, 3 ticks: 2, 1, 0.618, 0.445. Run at half of it.
    """
    if tau_ticks < 0:
        raise ValueError("a delay cannot be below zero")
    return 2.0 * math.sin(math.pi / (2.0 * (2 * tau_ticks + 1)))


def answer_ticks(service_s: FloatArray, tick_s: float, signals_s: float = 0.0) -> FloatArray:
    """Ticks from a price to the load that answers it: one until it is in force, what signals take,
    and half of a mean call.

    A price decides who calls from now on, and who was there before stays: where calls take S, of
    the answer the share `integral of P(S > v) dv from 0 to u / E[S]` has come after u seconds. In
    the mean it is half a call late where all are alike. Where they are not, it is later, but comes
    smeared, which takes less from stability than as much delay at once: the test of the limit
    holds half a mean call for both.
    """
    ticks: FloatArray = 1.0 + (signals_s + service_s / 2.0) / tick_s
    return ticks


def gain_share(gain: FloatArray | float, snapshot: MarketSnapshot) -> FloatArray | float:
    """The gain guard: what share of its own gain a controller may use, by endpoint, at most 1.

    `gain` is by how much the controller moves ln price in one tick for each unit of ln load, near
    its target. With demand of that elasticity the loop's gain is `gain * elasticity`; the share
    keeps it at or below half of `gain_limit`. 1 where delay or elasticity are not measured.
    """
    if snapshot.elasticity is None or snapshot.delay_ticks is None:
        return 1.0
    ticks = 2.0 * np.ceil(np.maximum(snapshot.delay_ticks, 0.0)) + 1.0
    allowed = SAFE_SHARE * 2.0 * np.sin(math.pi / (2.0 * ticks))
    used = gain * np.maximum(snapshot.elasticity, 0.0)
    # NaN and infinity in what was measured end up as the smallest share that is known to be safe.
    share: FloatArray = np.minimum(1.0, allowed / np.maximum(used, allowed))
    return np.nan_to_num(share, nan=0.0)


def kick_shares(
    kick: float, push: float, snapshot: MarketSnapshot
) -> tuple[FloatArray | float, FloatArray | float]:
    """The gain guard of a controller that moves ln price by `kick` at once for each unit of ln
    load, gives that back with the load, and adds `push` in every tick.

        kick * elasticity <= 1/4,    push * elasticity <= (1 - 2 * kick * elasticity) * limit / 2

    Twice of both is still stable, whatever the delay, for what is given back pulls as early as it
    pushed: x[t+1] - x[t] = -(push + kick) x[t-delay] + kick x[t-delay-1] has no root outside of the
    unit circle while kick <= 1/2 and push <= (1 - kick) * limit. Returns both shares, at most 1.
    """
    if snapshot.elasticity is None or snapshot.delay_ticks is None:
        return 1.0, 1.0
    used = kick * np.maximum(snapshot.elasticity, 0.0)
    most = 0.5 * SAFE_SHARE
    share: FloatArray = np.minimum(1.0, most / np.maximum(used, most))
    share = np.nan_to_num(share, nan=0.0)
    left = 1.0 - np.nan_to_num(np.minimum(used, most), nan=most) / SAFE_SHARE
    return share, gain_share(push / np.maximum(left, SAFE_SHARE), snapshot)


def _stepped(anchor: FloatArray, wanted: FloatArray, ratio: float) -> FloatArray:
    # Outward, so that the smallest rate of 1 can still become 2.
    low, high = np.floor(anchor / ratio), np.ceil(anchor * ratio)
    stepped: FloatArray = np.rint(np.clip(wanted, low, high))
    return stepped


def _worth_publishing(
    anchor: FloatArray, bounded: FloatArray, edges: tuple[IntArray, IntArray], hysteresis: float
) -> NDArray[np.bool_]:
    """Per endpoint, for its rates move together: a move large enough, or one that ends at an edge
    of the band, which would otherwise be approached for ever."""
    floor, ceiling = edges
    large = np.abs(bounded - anchor) > hysteresis * anchor
    at_edge = (bounded == floor) | (bounded == ceiling)
    moved: NDArray[np.bool_] = (large | (at_edge & (bounded != anchor))).any(axis=0)
    outside = (anchor < floor) | (anchor > ceiling)
    return moved | outside.any(axis=0)
