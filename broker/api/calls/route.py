"""A dry run: where a call would go now and why, without making it."""

from __future__ import annotations

from typing import Any, Final

from litestar import post
from litestar.params import JSONBody

from broker.api.callers import CHANGING, CONSUMERS
from broker.api.calls.call_messages import CandidateShown, RejectedShown
from broker.api.calls.quotes import (
    CascadeShown,
    GivenQuotes,
    RequestTold,
    Stage,
    cascade_shown,
    read_asked,
)
from broker.api.large_bodies import DRAFT_BYTES_MAX, DraftRequest
from broker.api.market.price_messages import Price, price
from broker.api.parts import GivenCaller
from broker.api.wire import Reply
from broker.core import story
from broker.core.chain import Chain
from broker.core.key_terms import Scope
from broker.flows.calls.quote import Rehearsal
from pricing.money import format_usd

CANDIDATES_SHOWN_MAX: Final = 100


class PlannedShown(Reply):
    """An endpoint that would be tried, in this order."""

    endpoint: str
    price: Price
    tokens_out_max: int
    ceiling_cost_usd: str


class RefusedShown(Reply):
    """What the call would be told."""

    code: str
    detail: str


class RouteShown(Reply):
    """Where a call would go; `refused` where it may go nowhere.

    `domain` is what it is about: named, or recognised with `domain_confidence`. `candidates` are
    the first hundred in rank order, `rejected` as many of the others. `ceiling_cost_usd` is the
    most that the call can cost, and what it will hold; `cascade` how it may be answered more than
    once.
    """

    domain: str | None
    domain_confidence: float | None
    price_version: int
    plan: list[PlannedShown]
    ceiling_cost_usd: str
    cascade: CascadeShown | None
    candidates: list[CandidateShown]
    rejected: list[RejectedShown]
    requirements: dict[str, Any]
    refused: RefusedShown | None


@post(
    "/route",
    summary="Decide without calling: where a request would go now, and why",
    guards=[CONSUMERS],
    tags=("Routing",),
    opt={CHANGING: Scope.READ},
    status_code=200,
    request_max_body_size=DRAFT_BYTES_MAX,
    request_class=DraftRequest,
)
async def route_dry(
    data: JSONBody[RequestTold], caller: GivenCaller, quotes: GivenQuotes
) -> RouteShown:
    """`POST /api/route`"""
    return _shown(await quotes.rehearse(caller, read_asked(data)))


def _cascade(made: Rehearsal) -> CascadeShown | None:
    chain = made.decision
    if made.cascade is None or not isinstance(chain, Chain):
        return None
    groups: list[Stage] = [
        ([made.market.endpoint(each.number).name for each in group], least)
        for group, least in zip(chain.groups, chain.keep_from, strict=True)
    ]
    return cascade_shown(made.cascade, groups, chain.hold_nanos)


def _shown(made: Rehearsal) -> RouteShown:
    told = story.decode(story.encode(made.wanted, made.decision, [], "rehearsed", 0.0))
    refused = made.refused
    return RouteShown(
        domain=made.wanted.domain,
        domain_confidence=made.wanted.domain_confidence,
        price_version=made.decision.price_version,
        plan=[
            PlannedShown(
                endpoint=made.market.endpoint(each.number).name,
                price=price(each.rate),
                tokens_out_max=each.tokens_out_max,
                ceiling_cost_usd=format_usd(each.ceiling_nanos),
            )
            for each in made.decision.plan
        ],
        ceiling_cost_usd=format_usd(made.decision.hold_nanos),
        cascade=_cascade(made),
        candidates=[
            CandidateShown(
                endpoint=made.market.endpoint(each.endpoint_number).name,
                score=each.score,
                parts=each.parts,
                expected_cost_usd=each.expected_cost_usd,
                propensity=each.propensity,
            )
            for each in told.candidates[:CANDIDATES_SHOWN_MAX]
        ],
        rejected=[
            RejectedShown(
                endpoint=made.market.endpoint(each.endpoint_number).name, reason=each.reason
            )
            for each in told.rejected[:CANDIDATES_SHOWN_MAX]
        ],
        requirements=told.requirements,
        refused=None if refused is None else RefusedShown(code=refused.code, detail=refused.detail),
    )
