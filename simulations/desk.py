"""The broker's side of a simulation: its market, its pulse, and its decisions by `route`."""

from __future__ import annotations

from collections.abc import Mapping

from broker.core.decision import Decision
from broker.core.eligibility import Rejection
from broker.core.market import Market, Presence, build_market
from broker.core.pulse import Pulse
from broker.core.requirements import Requirements
from broker.core.retries import RetryBudget
from broker.core.routing import route
from pricing.book import PriceBook, Rate
from pricing.tiers import BPS
from simulations.chance import source
from simulations.listing import Listing
from simulations.record import Code
from simulations.scenario import Scenario

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
