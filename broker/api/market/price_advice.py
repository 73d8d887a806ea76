"""Price advice: the band that would have earned a provider most."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter

from broker.api.callers import allow
from broker.api.long_reads import LONG
from broker.api.market.price_messages import Price, price
from broker.api.market.prices import EndpointName
from broker.api.parts import GivenCaller, GivenEngine, GivenMarket, GivenTime
from broker.api.wire import Reply
from broker.flows.market.advise_price import Advised, advise_price
from broker.store.access.accounts import Role
from pricing import advice
from pricing.advice import Reason
from pricing.book import Rate
from pricing.money import MAX_RATE_CALL_NANOS, MAX_RATE_MICROS, format_usd, parse_usd_nanos

DAYS_MAX = 28

Days = Annotated[int, QueryParameter(ge=1, le=DAYS_MAX, description="How far back to look.")]
Cost = Annotated[
    str, QueryParameter(name="cost_usd", max_length=40, description="What a call costs you.")
]


@dataclass(frozen=True, slots=True)
class Question:
    """What advice is asked for; the cost of a call in nano-dollars."""

    endpoint: str
    days: int
    cost_nanos: int


def asked_question(endpoint: EndpointName, days: Days = 7, cost_usd: Cost = "0") -> Question:
    """Read the query; a dependency."""
    return Question(endpoint, days, parse_usd_nanos(cost_usd))


GivenQuestion = NamedDependency[Question]


class Range(Reply):
    """A best guess, between bounds that it is beyond with 5% each."""

    low: float
    best: float
    high: float


class CallSold(Reply):
    """The mean of the calls looked at, and what it costs at today's list price; no price where
    there was no call."""

    calls: int
    tokens_in: float
    tokens_out: float
    duration_s: float
    listed_usd: str | None


class PriceAdvice(Reply):
    """What is advised, and why; prices are absent where nothing can be said.

    `elasticity`: by how many percent calls fall where the price rises by one. `listed_factor`: what
    to multiply today's list price with. `gain`: what the band would have earned more, as a share.
    """

    endpoint: str
    since: datetime = msgspec.field(name="from")
    until: datetime = msgspec.field(name="to")
    reason: Reason
    sentence: str
    periods: int
    usual_call: CallSold
    elasticity: Range | None
    floor: Price | None
    listed: Price | None
    ceiling: Price | None
    listed_factor: Range | None
    gain: Range | None


class AdviceController(Controller):
    """`/api/price-advice`"""

    path = "/price-advice"
    tags = ("Prices",)
    guards = (allow(Role.PROVIDER, Role.OPERATOR),)

    @get(
        summary="Which price band would have earned most",
        dependencies={"question": Provide(asked_question, sync_to_thread=False), **LONG},
    )
    async def advise(
        self,
        engine: GivenEngine,
        market: GivenMarket,
        caller: GivenCaller,
        now: GivenTime,
        question: GivenQuestion,
    ) -> PriceAdvice:
        asked = (question.days, question.cost_nanos, now)
        return _shown(await advise_price(engine, market, caller, question.endpoint, asked))


def _shown(advised: Advised) -> PriceAdvice:
    given, usual = advised.advice, advised.usual
    return PriceAdvice(
        endpoint=advised.endpoint.name,
        since=advised.stretch.since,
        until=advised.stretch.until,
        reason=given.reason,
        sentence=given.sentence,
        periods=given.periods,
        usual_call=CallSold(
            calls=usual.calls,
            tokens_in=round(usual.tokens_in, 1),
            tokens_out=round(usual.tokens_out, 1),
            duration_s=round(usual.duration_s, 3),
            listed_usd=(
                None if advised.listed_nanos is None else format_usd(round(advised.listed_nanos))
            ),
        ),
        elasticity=_range(given.elasticity),
        floor=_price(advised, given.floor_nanos),
        listed=_price(advised, None if given.listed_nanos is None else given.listed_nanos.best),
        ceiling=_price(advised, given.ceiling_nanos),
        listed_factor=_range(given.listed_nanos, advised.listed_nanos),
        gain=_range(given.gain),
    )


def _range(told: advice.Range | None, unit: float | None = 1.0) -> Range | None:
    if told is None or unit is None:
        return None
    return Range(
        low=round(told.low / unit, 4),
        best=round(told.best / unit, 4),
        high=round(told.high / unit, 4),
    )


def _price(advised: Advised, usual_nanos: float | None) -> Price | None:
    """Return the rates, in today's proportion, at which the usual call costs so much."""
    if usual_nanos is None or advised.listed_nanos is None:
        return None
    band, factor = advised.endpoint.band, usual_nanos / advised.listed_nanos
    return price(
        Rate(
            _scaled(band.list_in_micros, factor, MAX_RATE_MICROS),
            _scaled(band.list_out_micros, factor, MAX_RATE_MICROS),
            _scaled(band.list_call_nanos, factor, MAX_RATE_CALL_NANOS),
        )
    )


def _scaled(listed: int, factor: float, most: int) -> int:
    return min(max(round(listed * factor), 1), most) if listed else 0
