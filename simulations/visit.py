"""One call of a simulation, from its arrival to its end."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from broker.core import ledger
from broker.core.decision import Decision
from broker.core.dispatch import Attempt, Dispatch
from broker.core.health.pulse import Pulse
from broker.core.ledger import ChargeLine, Hold, Settlement
from broker.core.metering import Delivered, Expected, meter
from broker.core.requirements import Requirements
from pricing.book import Rate
from pricing.money import PICOS_PER_NANO
from simulations.demand import ConsumerClass
from simulations.measured.record import Code
from simulations.servers.job import Job
from simulations.servers.listing import Listing
from simulations.servers.sites import Site
from simulations.supply import QueueingServer

NO_ONE = UUID(int=0)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Holds of a simulation do not expire: its deadlines end them."""
BYTES_PER_TOKEN = 4


class Paid(NamedTuple):
    """What a call came to."""

    tokens_in: int
    tokens_out: int
    charge_nanos: int
    take_nanos: int


_NOTHING_PAID = Paid(0, 0, 0, 0)


class Visit:
    """A call under way; times are seconds of the run."""

    __slots__ = (
        "account",
        "arrival_s",
        "attempt",
        "beside",
        "cost_nanos",
        "deadline_s",
        "dearest",
        "dispatch",
        "hold",
        "job",
        "lines",
        "made",
        "of_class",
        "offer_nanos",
        "place",
        "price_version",
        "tokens_in",
        "tokens_in_bound",
        "tokens_out",
        "tries",
        "wanted",
    )

    def __init__(
        self, place: int, of_class: ConsumerClass, arrival_s: float, tokens: tuple[int, int]
    ) -> None:
        self.place = place
        """Of its class in the scenario."""
        self.of_class = of_class
        self.arrival_s = arrival_s
        self.tokens_in, self.tokens_out = tokens
        self.offer_nanos = math.inf
        self.deadline_s = math.inf
        self.account = 0
        self.tries = 0
        self.cost_nanos = 0.0
        self.lines: tuple[ChargeLine, ...] = ()
        self.wanted: Requirements | None = None
        """What it demands while it has not been held for, where the dearest price is"""
        self.dearest: Rate | None = None
        """this one."""
        self.tokens_in_bound = 0
        """As it demanded."""
        self.price_version = 0
        self.dispatch: Dispatch | None = None
        self.hold: Hold
        self.attempt: Attempt | None = None
        self.job: Job | None = None
        self.beside: tuple[Attempt, Job] | None = None
        """The other of two under way."""

    def attempt_of(self, job: Job) -> Attempt | None:
        """The attempt that is made by a job, while it is under way."""
        if job is self.job:
            return self.attempt
        return self.beside[0] if self.beside is not None and job is self.beside[1] else None

    def swap(self) -> None:
        """Let the other of two under way be the one that counts."""
        assert self.attempt is not None
        assert self.job is not None
        assert self.beside is not None
        self.attempt, self.job, self.beside = *self.beside, (self.attempt, self.job)

    def ask(self, dearest: Rate) -> Requirements:
        """What it demands, worked out ahead where that was at the same `dearest` price. Where that
        is no more than it is worth, no limit could refuse anything, and none is set."""
        wanted = self.wanted
        if wanted is None or dearest is not self.dearest:
            self.wanted = wanted = self._demand(dearest)
            self.dearest = dearest
        return wanted

    def _demand(self, dearest: Rate) -> Requirements:
        of, room = self.of_class, self.of_class.headroom
        tokens_in, tokens_out = self.tokens_in, self.tokens_out
        if room != 1.0:
            tokens_in, tokens_out = math.ceil(room * tokens_in), math.ceil(room * tokens_out)
        self.tokens_in_bound = tokens_in
        limit = tokens_out if of.task.generates else None
        offer, most = self.offer_nanos * room, None
        if dearest.picos(tokens_in, tokens_out) >= offer * PICOS_PER_NANO:
            most = int(offer)
        return Requirements(
            NO_ONE,
            of.task,
            of.model,
            tokens_in,
            self.tokens_in,
            limit,
            domain=of.domain,
            max_cost_nanos=most,
            quality_min=of.quality_min,
            weights=of.weights,
            tier=of.tier,
            tokens_in_longest=self._longest,
        )

    @property
    def _longest(self) -> int | None:
        part = self.of_class.longest_part
        return None if part == 1.0 else math.ceil(part * self.tokens_in)

    def meter(self, attempt: Attempt, made: int, claimed: int, pulse: Pulse) -> None:
        """Tell an attempt the tokens that are paid for, of what it delivered and claims."""
        number = attempt.candidate.number
        seen = Delivered(
            claimed_in=self.tokens_in,
            claimed_out=claimed,
            text_bytes=BYTES_PER_TOKEN * made,
            complete=made >= self.tokens_out,
            generates=self.of_class.task.generates,
        )
        expected = Expected(
            tokens_in_bound=self.tokens_in_bound,
            body_bytes=BYTES_PER_TOKEN * self.tokens_in,
            tokens_out_max=attempt.candidate.tokens_out_max,
            bytes_in_per_token=pulse.bytes_in_per_token_at[number],
            bytes_out_per_token=pulse.bytes_out_per_token_at[number],
        )
        usage = meter(seen, expected)
        attempt.tokens_in, attempt.tokens_out = usage.tokens_in, usage.tokens_out

    def _price(self, attempt: Attempt, listing: Listing) -> None:
        """Add the charge line of an attempt, by the ledger's recipe."""
        candidate, tokens = attempt.candidate, (attempt.tokens_in, attempt.tokens_out)
        endpoint = listing.endpoint(candidate.number)
        terms = (
            candidate.rate,
            self.price_version,
            endpoint.take_of(self.of_class.domain),
        )
        line = ledger.line(attempt.index, endpoint.id, endpoint.ledger_account, tokens, terms)
        attempt.charge_nanos = line.charge_nanos
        self.lines += (line,)

    def paid(self) -> Paid:
        """The sums over its charge lines."""
        if not self.lines:
            return _NOTHING_PAID
        return Paid(
            sum(each.tokens_in for each in self.lines),
            sum(each.tokens_out for each in self.lines),
            sum(each.charge_nanos for each in self.lines),
            sum(each.take_nanos for each in self.lines),
        )

    def settlement(self, listing: Listing) -> Settlement:
        """How its hold is closed, by the ledger's recipe."""
        assert self.dispatch is not None
        for attempt in self.dispatch.attempts:
            if attempt.tokens_in or attempt.tokens_out:
                self._price(attempt, listing)
        return ledger.settlement(self.hold, self.lines, EPOCH, None)

    def row(self, code: Code, e2e_s: float, worth: float) -> tuple[float, ...]:
        """What is counted of it at its end, as in CALL_COLUMNS."""
        endpoint, ttft_s, attempts = -1, math.nan, 0
        if self.dispatch is not None and self.dispatch.attempts:
            attempts = len(self.dispatch.attempts)
            last = self.attempt or self.dispatch.attempts[-1]
            endpoint = last.candidate.number
            if last.first_content_s is not None:
                ttft_s = last.first_content_s - self.arrival_s
        paid = self.lines[0] if len(self.lines) == 1 else self.paid()
        return (
            self.place,
            self.arrival_s,
            code,
            endpoint,
            ttft_s,
            e2e_s,
            paid.tokens_in,
            paid.tokens_out,
            paid.charge_nanos,
            paid.take_nanos,
            self.cost_nanos,
            self.offer_nanos,
            worth,
            attempts,
        )


def hold_of(decision: Decision) -> Hold:
    """The hold for a decision: its dearest permitted plan."""
    return Hold(NO_ONE, NO_ONE, "", decision.hold_nanos, EPOCH, EPOCH)


def worth_of(visit: Visit, site: Site, e2e_s: float) -> float:
    """Return what an answer is worth to its caller, in nano-dollars: less by what waiting costs."""
    of_class, spec = visit.of_class, site.spec
    worth = visit.offer_nanos
    if of_class.quality_taste:
        worth *= spec.quality_in(of_class.domain) ** of_class.quality_taste
    return worth - of_class.delay_cost_usd_per_s * e2e_s * 1e9


def places_of(site: Site) -> int:
    """Return how many calls a site serves at once."""
    spec = site.spec.server
    return spec.servers if isinstance(spec, QueueingServer) else site.spec.capacity
