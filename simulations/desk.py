"""The broker's side of a simulation: its market, its pulse, and its decisions by `route`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from broker.core.crowd import Crowd
from broker.core.decision import Decision
from broker.core.eligibility import Rejection
from broker.core.market import Market, Presence, build_market
from broker.core.pulse import Pulse
from broker.core.refusal import Cause, cause_of
from broker.core.requirements import Requirements
from broker.core.retries import RetryBudget
from broker.core.routing import route
from pricing.book import FloatArray, IntArray, PriceBook, Rate
from pricing.tiers import BPS
from simulations.chance import source
from simulations.listing import Listing
from simulations.record import Code
from simulations.scenario import Scenario

_CODES = {
    Cause.FULL: Code.FULL,
    Cause.AWAY: Code.AWAY,
    Cause.TIER: Code.UNFIT,
    Cause.PRICE: Code.PRICED_OUT,
    Cause.TERMS: Code.UNFIT,
}


class Desk:
    """Decides, and counts what is under way."""

    def __init__(self, scenario: Scenario, listing: Listing, seed: int) -> None:
        self.pulse = Pulse()
        self.pulse.fit(listing.size, listing.size)
        self.retries = RetryBudget(0.0)
        self.random = source(seed, "routing")
        self.routing = scenario.routing
        self._listing = listing
        self.market: Market = build_market((), PriceBook.empty(), {})
        factors = [bps for each in listing.specs for bps in each.tiers_bps.values()]
        self._markup = -(-max(BPS, *factors, 0) // BPS)
        self.dearest = Rate(0, 0, 0)
        """No endpoint is dearer than this, in any tier."""

    def publish(self, book: PriceBook, presence: Mapping[int, Presence]) -> None:
        """Let calls be decided on this book and on what is on offer now."""
        self.market = build_market(self._listing.endpoints, book, presence, self.market)
        highest = book.matrix(self._listing.size).max(axis=1, initial=0).tolist()
        self.dearest = Rate(*(self._markup * rate for rate in highest))

    def decide(self, wanted: Requirements, now_s: float) -> Decision | None:
        """Decide as the live broker does."""
        return route(wanted, self.market, self.pulse, self.routing, (self.random, now_s))

    def refusal(self, wanted: Requirements, decision: Decision | None) -> Code:
        """Why a decision has no candidate. A call that is turned away by the full is demand."""
        if decision is None:
            return Code.UNFIT
        cause = cause_of(decision.reasons.tolist())
        if cause is Cause.FULL and not wanted.tier.yields:
            self.pulse.refuse(decision.rejected[decision.reasons == Rejection.FULL])
        return _CODES[cause]

    def refusals(self, crowd: Crowd, rows: IntArray, load: FloatArray) -> IntArray:
        """The same of these calls of a crowd, each with the loads that it was decided on."""
        grid, kind, reasons = crowd.grid, crowd.asked.kind[rows], crowd.reasons(load, rows)
        sets = np.bitwise_or.reduce(1 << reasons, axis=1).tolist()
        codes = np.array([_code_of(each) for each in sets], dtype=np.int64)
        codes[~grid.exists[kind]] = Code.UNFIT
        counted = (codes == Code.FULL) & ~grid.yields[kind, 0]
        if counted.any():
            full = (reasons[counted] == Rejection.FULL).nonzero()[1]
            self.pulse.refuse(grid.deployments[grid.servers[full]])
        return codes


@cache
def _code_of(reasons: int) -> Code:
    """Of a set of Rejections, as bits; there are few of them."""
    return _CODES[cause_of([each for each in Rejection if reasons >> each & 1])]
