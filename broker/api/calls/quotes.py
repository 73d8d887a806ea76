"""Firm quotes: what a request would cost and where, promised for some seconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import BodyKwarg, FromPath, JSONBody, SkipValidation
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import CONSUMERS
from broker.api.large_bodies import DRAFT_BYTES_MAX, DraftRequest, Written
from broker.api.market.price_messages import Price, price
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine
from broker.api.wire import Body, Reply
from broker.core.cascade import Below, Cascade
from broker.core.catalog import Task
from broker.core.quote import Promise
from broker.errors import RequestMalformed
from broker.flows.calls.quote import TTL_S_MAX, Draft, Estimate, QuoteDesk
from broker.store.calls.quotes import Quote
from pricing.money import format_usd

GivenQuotes = NamedDependency[SkipValidation[QuoteDesk]]

Tokens = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

Stage = tuple[list[str | None], float | None]
_PATHS: Final = {
    "/v1/chat/completions": Task.CHAT,
    "/v1/completions": Task.COMPLETION,
    "/v1/embeddings": Task.EMBEDDING,
}
_MARKS: Final = {"messages": Task.CHAT, "prompt": Task.COMPLETION, "input": Task.EMBEDDING}


class RequestTold(Body):
    """What is asked for: an estimate, or the `request` itself as it would be sent.

    An estimate has a `task`, a `model`, `tokens_in` and, where text is generated, `tokens_out_max`;
    the object `broker` says what is demanded and wished for, as in a call. An inference has a model
    and no tokens. A request goes to `path`, or is of the `task` that its members tell.
    """

    task: Task | None = None
    path: str | None = None
    request: Annotated[Any, BodyKwarg(schema_extra={"type": ["object", "null"]})] = None
    model: Text | None = None
    version: Text | None = None
    tokens_in: Tokens | None = None
    tokens_out_max: Tokens | None = None
    choices: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    broker: dict[str, Any] | None = None


class QuoteWanted(RequestTold):
    """What a firm quote is asked for, and for how many seconds it shall hold."""

    ttl_s: Annotated[int, msgspec.Meta(ge=1, le=TTL_S_MAX)] = 30


class OfferShown(Reply):
    """An endpoint of a quote, in the order in which they are tried; `parts` make up the score."""

    endpoint: str | None
    price: Price
    tokens_out_max: int
    expected_cost_usd: str
    ceiling_cost_usd: str
    score: float
    parts: dict[str, float]


class StageShown(Reply):
    """A stage of a cascade: an answer is kept from `keep_from` on; missing: by benefit."""

    endpoints: list[str | None]
    keep_from: float | None


class CascadeShown(Reply):
    """How a call may be answered more than once; all together costs `ceiling_cost_usd` at most."""

    stages: list[StageShown]
    keep_from: float | None
    below: Below
    pay: Literal["both", "kept"]
    agreement: str | None
    ceiling_cost_usd: str


class QuoteShown(Reply):
    """A quote: `ceiling_cost_usd` is the most that its call can cost, and what it will hold.

    A call is made on it with `broker.quote_id`, or the header `x-broker-quote-id`.
    """

    quote_id: UUID
    status: Literal["open", "used", "expired"]
    call_id: UUID | None
    created_at: datetime
    expires_at: datetime
    price_version: int
    task: Task
    model: str
    tokens_in: int
    tokens_out_max: int
    choices: int
    ceiling_cost_usd: str
    offers: list[OfferShown]
    cascade: CascadeShown | None


class RejectedOffer(Reply):
    """An endpoint that does not fit, and why."""

    endpoint: str
    reason: str


class QuoteMade(QuoteShown):
    """A new quote, with the first of those that did not fit."""

    rejected: list[RejectedOffer]


class QuoteController(Controller):
    """`/api/quotes`"""

    path = "/quotes"
    guards = (CONSUMERS,)
    tags = ("Quotes",)

    @post(
        summary="Ask for a firm quote",
        request_max_body_size=DRAFT_BYTES_MAX,
        request_class=DraftRequest,
    )
    async def make(
        self, data: JSONBody[QuoteWanted], caller: GivenCaller, quotes: GivenQuotes, once: GivenOnce
    ) -> Response[QuoteMade]:
        asked = read_asked(data)

        async def act(connection: AsyncConnection) -> QuoteMade:
            made = await quotes.make(connection, caller, asked, data.ttl_s)
            rejected = [RejectedOffer(**each) for each in made.rejected]
            return QuoteMade(**_members(made.quote, made.names), rejected=rejected)

        return await once(act)

    @get("/{quote_id:uuid}", summary="A quote, and what has become of it")
    async def read(
        self,
        quote_id: FromPath[UUID],
        caller: GivenCaller,
        quotes: GivenQuotes,
        engine: GivenEngine,
    ) -> QuoteShown:
        async with engine.connect() as connection:
            quote, names = await quotes.read(connection, caller, quote_id)
        return QuoteShown(**_members(quote, names))


def read_asked(data: RequestTold) -> Estimate | Draft:
    """Return what is asked for. Raises RequestMalformed, naming the field."""
    task = data.task
    if data.path is not None:
        if data.path not in _PATHS:
            raise _refused("path", f"is one of {', '.join(_PATHS)}.")
        if task is not None and task is not _PATHS[data.path]:
            raise _refused("task", f"is not that of {data.path}.")
        task = _PATHS[data.path]
    request = data.request
    if isinstance(request, dict):
        request = Written(msgspec.Raw(msgspec.json.encode(request)), frozenset(request))
    if isinstance(request, Written):
        return _draft(data, request, task)
    if request is not None:
        raise _refused("request", "is an object.")
    return _estimate(data, task)


def _draft(data: RequestTold, request: Written, task: Task | None) -> Draft:
    for name in ("model", "version", "tokens_in", "tokens_out_max", "choices", "broker"):
        if getattr(data, name) is not None:
            raise _refused(name, "is told by the request itself.")
    if task is None:
        told = [each for mark, each in _MARKS.items() if mark in request.marks]
        if len(told) != 1:
            raise _refused("task", "is missing: the request does not tell it.")
        task = told[0]
    if task is Task.INFER:
        raise _refused("request", "is not taken for an inference; tell the task and the model.")
    return Draft(task, bytes(request.text))


def _estimate(data: RequestTold, task: Task | None) -> Estimate:
    if task is None:
        raise _refused("task", "is missing; or send the request itself.")
    if data.model is None:
        raise _refused("model", "is missing; 'auto' lets the broker choose.")
    needed = {
        Task.CHAT: ("tokens_in", "tokens_out_max"),
        Task.COMPLETION: ("tokens_in", "tokens_out_max"),
        Task.EMBEDDING: ("tokens_in",),
        Task.INFER: (),
    }[task]
    for name in ("tokens_in", "tokens_out_max"):
        if name in needed and getattr(data, name) is None:
            raise _refused(name, "is missing: a quote needs an estimate.")
        if name not in needed and getattr(data, name) is not None:
            raise _refused(name, f"does not count for the task '{task}'.")
    if data.choices is not None and not task.generates:
        raise _refused("choices", f"does not count for the task '{task}'.")
    return Estimate(
        task=task,
        model=data.model,
        wishes=None if data.broker is None else msgspec.json.encode(data.broker),
        tokens_in=data.tokens_in or 0,
        tokens_out_max=data.tokens_out_max,
        choices=data.choices or 1,
        version=data.version,
    )


def _refused(field: str, detail: str) -> RequestMalformed:
    return RequestMalformed(f"'{field}' {detail}", facts={"field": field})


def cascade_shown(cascade: Cascade, groups: Sequence[Stage], ceiling_nanos: int) -> CascadeShown:
    """Tell a cascade whose stages are these endpoints, each with what its answer is kept from."""
    return CascadeShown(
        stages=[StageShown(endpoints=names, keep_from=least) for names, least in groups],
        keep_from=cascade.keep_from,
        below=cascade.below,
        pay="both" if cascade.pays_all else "kept",
        agreement=cascade.agreement,
        ceiling_cost_usd=format_usd(ceiling_nanos),
    )


def _cascade(promised: Promise, names: dict[int, str]) -> CascadeShown | None:
    stages = promised.stages
    if stages is None:
        return None
    placed = list(zip(promised.offers, stages.by_place, strict=True))
    groups = [
        ([names.get(each.number) for each, stage in placed if stage == at], least)
        for at, least in enumerate(stages.keep_from)
    ]
    return cascade_shown(stages.cascade, groups, promised.ceiling_nanos)


def _members(quote: Quote, names: dict[int, str]) -> dict[str, Any]:
    promised = quote.promise
    status = "expired" if quote.has_expired else "open"
    return {
        "quote_id": quote.id,
        "status": status if quote.used_by is None else "used",
        "call_id": quote.used_by,
        "created_at": quote.created_at,
        "expires_at": quote.expires_at,
        "price_version": promised.price_version,
        "task": promised.wanted.task,
        "model": promised.wanted.model,
        "tokens_in": promised.tokens_in,
        "tokens_out_max": promised.tokens_out_max,
        "choices": promised.wanted.choices,
        "ceiling_cost_usd": format_usd(promised.ceiling_nanos),
        "offers": [
            OfferShown(
                endpoint=names.get(each.number),
                price=price(each.rate),
                tokens_out_max=each.tokens_out_max,
                expected_cost_usd=format_usd(each.expected_nanos),
                ceiling_cost_usd=format_usd(each.ceiling_nanos),
                score=round(each.score, 4),
                parts={name: round(part, 4) for name, part in each.parts.items()},
            )
            for each in promised.offers
        ],
        "cascade": _cascade(promised, names),
    }
