"""Firm quotes as values: what is promised at which endpoints, and the decision of a call on one.

A call on a quote is decided like any other, in a market in which the quoted endpoints cost what was
quoted and no other has a price: so a quoted endpoint that has gone meanwhile is left out for the
same reasons as ever. The order is the quote's.
"""

from __future__ import annotations

import math
from uuid import UUID

import msgspec
import numpy as np

from broker.core.candidates.scoring import PARTS
from broker.core.cascade import Cascade
from broker.core.chain import Chain, hold_of
from broker.core.decision import Candidate, Decision
from broker.core.market import Market
from broker.core.requirements import Requirements
from broker.errors import QuoteRefused
from pricing.book import PriceBook, Rate
from pricing.money import charge_nanos
from pricing.tiers import Tier


class Offer(msgspec.Struct, frozen=True):
    """What one endpoint is quoted at, and why it stands at its place."""

    endpoint_id: UUID
    number: int
    rate: Rate
    tokens_out_max: int
    """Of each choice."""
    expected_nanos: int
    ceiling_nanos: int
    """The most that a call can cost there."""
    score: float
    parts: dict[str, float]


class Stages(msgspec.Struct, frozen=True):
    """How a call may be answered more than once."""

    cascade: Cascade
    by_place: tuple[int, ...]
    """The stage of each offer."""
    keep_from: tuple[float | None, ...]


class Promise(msgspec.Struct, frozen=True):
    """What is promised: the demands it was asked for, at one version of the prices; best first."""

    wanted: Requirements
    price_version: int
    offers: tuple[Offer, ...]
    stages: Stages | None = None
    """Of a cascade."""

    @property
    def tokens_in(self) -> int:
        """As many as a prompt may have."""
        return self.wanted.tokens_in_bound

    @property
    def tokens_out_max(self) -> int:
        """As many as a choice may have at the endpoint that allows most."""
        return max(each.tokens_out_max for each in self.offers)

    @property
    def ceiling_nanos(self) -> int:
        """The most that a call can cost at any of them, of a cascade at all: what it will hold."""
        ceilings = [each.ceiling_nanos for each in self.offers]
        if self.stages is None:
            return max(ceilings)
        samples = self.stages.cascade.agreement is not None
        return hold_of(ceilings, self.stages.by_place, samples=samples)


def promise(
    wanted: Requirements, decision: Decision, market: Market, cascade: Cascade | None = None
) -> Promise:
    """Return what a decision with a plan comes to as a quote; that of a cascade is a chain."""
    places = {int(number): at for at, number in enumerate(decision.eligible)}
    scores, parts, costs = decision.scores, decision.parts, decision.costs_picos
    offers = []
    for each in decision.plan:
        at = places[each.number]
        offers.append(
            Offer(
                endpoint_id=market.endpoint(each.number).id,
                number=each.number,
                rate=each.rate,
                tokens_out_max=each.tokens_out_max,
                expected_nanos=charge_nanos(math.ceil(costs[at])),
                ceiling_nanos=each.ceiling_nanos,
                score=float(scores[at]),
                parts=dict(zip(PARTS, parts[:, at].tolist(), strict=True)),
            )
        )
    stages = None
    if cascade is not None:
        assert isinstance(decision, Chain)
        stages = Stages(cascade, decision.by_place, decision.keep_from)
    return Promise(wanted, decision.price_version, tuple(offers), stages)


def on_quote(promised: Promise, wanted: Requirements) -> Requirements:
    """Return the demands of a call on a quote: its own, and those that the quote was made for.

    Prices are demanded by the call alone, and met by the quoted ones. Raises QuoteRefused with code
    `quote_mismatch` for another task, `quote_exceeded` for more than was quoted.
    """
    asked = promised.wanted
    if wanted.task is not asked.task:
        raise QuoteRefused(
            f"The quote is for {asked.task}, not for {wanted.task}.",
            code="quote_mismatch",
            status=400,
        )
    if wanted.tier not in (Tier.STANDARD, asked.tier):
        raise QuoteRefused(
            f"The quote is for the tier {asked.tier}, not for {wanted.tier}.",
            code="quote_mismatch",
            status=400,
        )
    _require_at_most("tokens_in", wanted.tokens_in_expected, promised.tokens_in)
    _require_at_most("choices", wanted.choices, asked.choices)
    if wanted.tokens_out_max is not None:
        _require_at_most("tokens_out_max", wanted.tokens_out_max, promised.tokens_out_max)
    out = asked.tokens_out_max if wanted.tokens_out_max is None else wanted.tokens_out_max
    if wanted.value_nanos is None and wanted.weights == asked.weights:
        # What money was worth to the quote holds where the call says nothing else.
        paced, value_nanos = asked.paced, asked.value_nanos
        wanted = msgspec.structs.replace(wanted, value_nanos=value_nanos, paced=paced)
    return msgspec.structs.replace(
        wanted,
        tokens_in_bound=min(wanted.tokens_in_bound, promised.tokens_in),
        tokens_out_max=out,
        version=wanted.version or asked.version,
        domain=wanted.domain or asked.domain,
        regions=_both(wanted.regions, asked.regions),
        allow_retention=wanted.allow_retention and asked.allow_retention,
        allow_training=wanted.allow_training and asked.allow_training,
        providers_only=_both(wanted.providers_only, asked.providers_only),
        providers_ignore=wanted.providers_ignore | asked.providers_ignore,
        tier=asked.tier,
        skipped=asked.skipped,
    )


def exceeded(name: str, given: int, quoted: int) -> QuoteRefused:
    """Return the refusal of a call that asks for more than was quoted."""
    return QuoteRefused(
        f"The call has {name} of about {given}, the quote is for {quoted}.",
        code="quote_exceeded",
        status=400,
        facts={"field": name, "given": given, "quoted": quoted},
    )


def quoted_market(promised: Promise, market: Market) -> Market:
    """Return the market as it is, but for the prices: those of the quote, and no others."""
    rates = np.zeros((3, len(market.endpoints)), dtype=np.int64)
    for each in promised.offers:
        if each.number < len(market.endpoints):
            rate = each.rate
            rates[:, each.number] = rate.rate_in_micros, rate.rate_out_micros, rate.rate_call_nanos
    book = PriceBook.from_matrix(promised.price_version, rates)
    return Market(market.columns, market.presence, book, market.away, quoted=True)


def kept(promised: Promise, wanted: Requirements, decision: Decision) -> Decision:
    """Return a decision in the quoted market with the quote's order and ceilings.

    Of who was rejected, only the quoted stay: the others were never asked.
    """
    planned = {each.number: each for each in decision.plan}
    plan = [
        Candidate(
            each.number,
            each.rate,
            min(planned[each.number].tokens_out_max, each.tokens_out_max),
            each.ceiling_nanos,
        )
        for each in promised.offers
        if each.number in planned and (wanted.tokens_out_max or 0) <= each.tokens_out_max
    ]
    quoted = np.isin(decision.rejected, [each.number for each in promised.offers])
    return msgspec.structs.replace(
        decision,
        plan=tuple(plan),
        rejected=decision.rejected[quoted],
        reasons=decision.reasons[quoted],
    )


def in_stages(promised: Promise, stages: Stages, decision: Decision) -> Chain:
    """Return a quoted cascade of those who can be asked now; a stage of whom nobody can be is left
    out. `decision` has a candidate at least."""
    stage_of = {
        each.number: stage for each, stage in zip(promised.offers, stages.by_place, strict=True)
    }
    left = [stage_of[each.number] for each in decision.plan]
    order = sorted(set(left))
    keep_from = tuple(stages.keep_from[each] for each in order)
    return Chain(
        **{name: getattr(decision, name) for name in Decision.__struct_fields__},
        by_place=tuple(order.index(each) for each in left),
        keep_from=(*keep_from[:-1], keep_from[-1] or 0.0),
        samples=stages.cascade.agreement is not None,
    )


def _require_at_most(name: str, given: int, quoted: int) -> None:
    if given > quoted:
        raise exceeded(name, given, quoted)


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return one if other is None else other
    return one & other
