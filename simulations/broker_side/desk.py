"""The broker's side of a simulation: its market, its pulse, and its decisions by `route`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

import numpy as np

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.refusal import Cause, cause_of
from broker.core.decision import Decision
from broker.core.dispatch import Attempt
from broker.core.health.measured import Measured, MeasuredMany
from broker.core.health.pulse import Pulse
from broker.core.health.throttle import Cut, Throttle
from broker.core.hedging import HedgeBudget, Tails
from broker.core.many.crowd import Crowd
from broker.core.market import Market, Presence, build_market
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.requirements import Requirements
from broker.core.retries import RetryBudget
from broker.core.routing import route
from pricing.book import FloatArray, IntArray, PriceBook, Rate
from pricing.tiers import BPS
from simulations.broker_side.ends import At, Ends, apart
from simulations.chance import source
from simulations.measured.record import Code
from simulations.scenario import Scenario
from simulations.servers.listing import Listing
from simulations.visit import BYTES_PER_TOKEN

LATE = Outcome(Fault.DEADLINE)
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
        self.hedges = HedgeBudget()
        self.tails = Tails()
        self.throttle: Throttle | None = None
        """None: servers are limited by what is declared alone."""
        self._ends: Ends | None = None
        if scenario.learns_limits:
            factor = scenario.routing.queue_factor
            self.throttle = Throttle(self.pulse, factor)
            self._ends = Ends(self.throttle, self.pulse, listing, factor)
        self.random = source(seed, "routing")
        self.routing = scenario.routing
        self._listing = listing
        self._is_hedged = any(each.hedge for each in scenario.classes)
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

    def hear(self, now_s: float) -> None:
        """Be told, again and again, that time passes."""
        self.pulse.recover(now_s)
        if self.throttle is not None and self._ends is not None:
            self._ends.tell()
            self.throttle.relax(now_s)

    def decide(self, wanted: Requirements, now_s: float) -> Decision | None:
        """Decide as the live broker does."""
        return route(wanted, self.market, self.pulse, self.routing, (self.random, now_s))

    def delivered(self, attempt: Attempt, asked: tuple[int, bool], now_s: float) -> None:
        """Be told of an answer that is whole; `asked` is (tokens in, whether it was streamed)."""
        number, (tokens_in, streamed) = attempt.candidate.number, asked
        started_s, first_s = attempt.started_s, attempt.first_content_s
        # Of an answer that comes whole nobody sees when it began.
        seen_s = first_s if streamed and first_s is not None else now_s
        measured = Measured(
            ttft_ms=(seen_s - started_s) * 1_000,
            duration_ms=(now_s - started_s) * 1_000,
            tokens_out=attempt.tokens_out,
        )
        learned = True
        if self.throttle is not None:
            endpoint, size = self._listing.endpoint(number), BYTES_PER_TOKEN * tokens_in
            learned = self.throttle.tell(
                endpoint, (size, attempt.tokens_out), measured, now_s, streamed=streamed
            )
        if learned and self._is_hedged:
            self.tails.tell(number, measured.ttft_ms, streamed=streamed)
        self.pulse.end(number, number, DELIVERED, now_s, measured, started_s)

    def failed(
        self, attempt: Attempt, outcome: Outcome, asked: tuple[int, bool], now_s: float
    ) -> None:
        """Be told of an attempt that brought nothing, or not all; `asked` as in `delivered`."""
        number = attempt.candidate.number
        if self.throttle is not None:
            cut = None
            if outcome.fault is Fault.DEADLINE and attempt.first_content_s is None:
                lasted_ms = (now_s - attempt.started_s) * 1_000
                cut = Cut(lasted_ms, BYTES_PER_TOKEN * asked[0], asked[1])
            if self._ends is not None:
                self._ends.tell()
            self.throttle.failed(self._listing.endpoint(number), outcome, cut, now_s)
        self.pulse.end(number, number, outcome, now_s, None, attempt.started_s)

    def learn_many(
        self, number: IntArray, sizes: tuple[IntArray, IntArray], seen: MeasuredMany, at: At
    ) -> None:
        """Be told of many whole answers by endpoint, in order of time, before they are counted out;
        `sizes` is (tokens in, tokens out)."""
        if self._ends is not None:
            self._ends.add(number, sizes, seen, at)

    def cut_many(
        self, number: IntArray, tokens_in: IntArray, lasted_ms: FloatArray, at: At
    ) -> None:
        """Be told of many calls that were given up before anything came, in the same way."""
        if self.throttle is None or self._ends is None:
            return
        self._ends.tell()
        places, columns = apart(number, at[0]), (number, tokens_in, lasted_ms, *at)
        for row in zip(*(each[places].tolist() for each in columns), strict=True):
            cut = Cut(row[2], BYTES_PER_TOKEN * row[1], row[4])
            self.throttle.failed(self._listing.endpoint(row[0]), LATE, cut, row[3])

    def refusal(self, wanted: Requirements, decision: Decision | None) -> Code:
        """Why a decision has no candidate. A call that is turned away by the full is demand."""
        if decision is None:
            return Code.UNFIT
        code = _code_told(decision.reasons.tobytes())
        if code is Code.FULL and not wanted.tier.yields:
            self.pulse.refuse(decision.rejected[decision.reasons == Rejection.FULL])
        return code

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


@lru_cache(maxsize=1_024)
def _code_told(reasons: bytes) -> Code:
    """Of the Rejections of all who were considered: markets have few such rows at a time."""
    return _CODES[cause_of(np.frombuffer(reasons, dtype=np.int64).tolist())]


@cache
def _code_of(reasons: int) -> Code:
    """Of a set of Rejections, as bits; there are few of them."""
    return _CODES[cause_of([each for each in Rejection if reasons >> each & 1])]
