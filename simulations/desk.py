"""The broker's side of a simulation: its market, its pulse, and its decisions by `route`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from broker.core.catalog import Endpoint
from broker.core.decision import Decision
from broker.core.eligibility import Rejection
from broker.core.market import Market, Presence, build_market
from broker.core.pulse import Pulse
from broker.core.requirements import Requirements
from broker.core.retries import RetryBudget
from broker.core.routing import route
from broker.core.view import RoutingLimits
from pricing.book import IntArray, PriceBook
from pricing.tiers import BPS, Tier
from simulations.chance import source
from simulations.listing import Listing
from simulations.record import Code
from simulations.scenario import Scenario

YIELDING_LOAD = 0.8
"""A tier that yields finds an endpoint full from this load on."""
_PASSING = frozenset({Rejection.FULL, Rejection.EJECTED, Rejection.NOT_PRESENT})
_PRICED_OUT = frozenset({Rejection.RATE_TOO_HIGH, Rejection.COST_TOO_HIGH})


class Desk:
    """Decides, and counts what is under way."""

    def __init__(self, scenario: Scenario, listing: Listing, seed: int) -> None:
        self.pulse = Pulse()
        self.pulse.fit(listing.size, listing.size)
        self.retries = RetryBudget(0.0)
        self.random = source(seed, "routing")
        self.routing = scenario.routing
        self._listing = listing
        limits = scenario.routing
        yielding = replace(limits, queue_factor=min(limits.queue_factor, YIELDING_LOAD))
        tiers = sorted({each.tier for each in scenario.classes})
        self.limits: Mapping[Tier, RoutingLimits] = {
            tier: yielding if tier.yields else limits for tier in tiers
        }
        self.markets: dict[Tier, Market] = {}

    def publish(self, book: PriceBook, presence: Mapping[int, Presence]) -> None:
        """Let calls be decided on this book and on what is on offer now."""
        for tier in self.limits:
            offered, rates = self._offered(tier, book)
            before = self.markets.get(tier)
            self.markets[tier] = build_market(offered, rates, presence, before)

    def decide(self, wanted: Requirements, tier: Tier, now_s: float) -> Decision | None:
        """Decide as the live broker does; a call that finds all full is counted with them."""
        market = self.markets[tier]
        chance = (self.random, now_s)
        return route(wanted, market, self.pulse, self.limits[tier], chance)

    def refusal(self, decision: Decision | None) -> Code:
        """Why a decision has no candidate. A call that is turned away by the full is demand."""
        if decision is None:
            return Code.UNFIT
        reasons = {Rejection(each) for each in set(decision.reasons.tolist())}
        if reasons <= _PASSING:
            if Rejection.FULL in reasons:
                self.pulse.refuse(decision.rejected[decision.reasons == Rejection.FULL])
                return Code.FULL
            return Code.AWAY
        return Code.PRICED_OUT if reasons & _PRICED_OUT else Code.UNFIT

    def _offered(self, tier: Tier, book: PriceBook) -> tuple[Iterable[Endpoint], PriceBook]:
        """Who serves a tier, and at which rates."""
        endpoints = self._listing.endpoints
        if tier is Tier.STANDARD:
            return endpoints, book
        specs = self._listing.specs
        offered = [each for each in endpoints if tier in specs[each.number].tiers_bps]
        rates = book.matrix(self._listing.size)
        factors: IntArray = np.zeros(self._listing.size, dtype=np.int64)
        for each in offered:
            factors[each.number] = specs[each.number].tiers_bps[tier]
        # As `pricing.tiers.tier_rate`: rounded up, within the band.
        bands = self._listing.bands
        tiered = np.clip(-(-rates * factors // BPS), bands.floor, bands.ceiling)
        tiered[:, factors == 0] = 0
        return offered, PriceBook.from_matrix(book.version, tiered)
