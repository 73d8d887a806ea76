"""Decides a call that is made on a firm quote, and uses the quote up: once, by whoever is first.

The quote is used in a transaction of its own before the hold is asked for; a call that gets no hold
gives it back. If a broker dies between the two, a sweep gives it back (`broker.flows.books.sweep`);
and a broker that was taken for dead finds its quote gone once its hold is open, before a byte is
sent.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final
from uuid import UUID

import msgspec

from broker.core.call import Call, OpenAiBody
from broker.core.candidates.reasons import tally
from broker.core.candidates.refusal import Cause, cause_of
from broker.core.columns import AUTO
from broker.core.decision import Decision, undecided
from broker.core.market import Market
from broker.core.quote import Promise, exceeded, in_stages, kept, on_quote, quoted_market
from broker.core.requirements import Requirements
from broker.core.routing import route
from broker.errors import BrokerError, QuoteRefused, Unavailable
from broker.flows.calls.decide import rejections
from broker.flows.calls.plan_cascade import asking_for_logprobs, within
from broker.flows.runtime import Runtime
from broker.store.away import DATABASE_AWAY
from broker.store.calls import quotes as quote_store
from broker.store.calls.quotes import Quote

_DATABASE_S: Final = 5.0
"""The database has so long for each question."""
_RETRY_AFTER_S: Final = 1.0


async def redeem(call: Call, quote_id: UUID, runtime: Runtime) -> tuple[Call, Decision, Market]:
    """Return the call held to its quote, where it goes, and the market that it was decided in.

    A decision without a plan uses nothing up. Raises QuoteRefused, and Unavailable when the
    database is away.
    """
    quote = await _find(call, quote_id, runtime)
    _require_open(quote)
    wanted = on_quote(quote.promise, call.wanted)
    market = runtime.market
    decision = _decide(quote.promise, wanted, runtime)
    if decision.plan:
        await _require_counted(call, quote, decision, runtime)
        await _use(call, quote_id, runtime)
    stages = quote.promise.stages
    call = msgspec.structs.replace(call, wanted=wanted)
    if stages is None or not decision.plan:
        return call, decision, market
    call = msgspec.structs.replace(call, cascade=stages.cascade, hedges=False, continues=False)
    return asking_for_logprobs(call), decision, market


def unavailable(decision: Decision, runtime: Runtime) -> BrokerError:
    """Return the error for a quote of whose endpoints none is fit now; it is open still.

    Unavailable where that may pass, QuoteRefused where the call itself demands otherwise.
    """
    told = rejections(decision, runtime)
    facts = {"rejected": told}
    reasons = ", ".join(f"{each['endpoint']} {each['reason']}" for each in told)
    if cause_of(tally(decision.reasons)) not in (Cause.FULL, Cause.AWAY):
        return QuoteRefused(
            f"No endpoint of the quote meets the call's own demands: {reasons}.",
            code="quote_mismatch",
            status=400,
            facts=facts,
        )
    return Unavailable(
        f"No endpoint of the quote can be called now: {reasons or 'all have left the market'}. "
        "The quote is still open.",
        code="quote_unavailable",
        retry_after_s=_RETRY_AFTER_S,
        facts=facts,
    )


async def give_back(call: Call, runtime: Runtime) -> None:
    """Open the quote of a call again that got no hold; raises nothing."""
    quote_id = call.wanted.quote_id
    assert quote_id is not None
    try:
        async with asyncio.timeout(_DATABASE_S), runtime.engine.begin() as connection:
            await quote_store.give_back(connection, quote_id, call.id)
    except DATABASE_AWAY as error:
        runtime.ledger.outage.met(error, quote_not_given_back=str(quote_id))


def give_back_later(call: Call, runtime: Runtime) -> None:
    """Do so without a caller to wait for it."""
    task = asyncio.get_running_loop().create_task(give_back(call, runtime))
    runtime.running.add(task)
    task.add_done_callback(runtime.running.discard)


async def require_ours(call: Call, quote_id: UUID, runtime: Runtime) -> None:
    """Make sure that a quote is the call's still. Raises QuoteRefused, and Unavailable when the
    database is away."""
    try:
        async with asyncio.timeout(_DATABASE_S), runtime.engine.begin() as connection:
            ours = await quote_store.stands(connection, quote_id, call.id)
    except DATABASE_AWAY as error:
        raise _away(error, runtime) from None
    if not ours:
        raise _used()


async def _find(call: Call, quote_id: UUID, runtime: Runtime) -> Quote:
    try:
        async with asyncio.timeout(_DATABASE_S), runtime.engine.connect() as connection:
            quote = await quote_store.find(connection, quote_id, call.payer.account_id)
    except DATABASE_AWAY as error:
        raise _away(error, runtime) from None
    if quote is None:
        raise QuoteRefused("There is no such quote.", code="quote_unknown", status=404)
    return quote


async def _use(call: Call, quote_id: UUID, runtime: Runtime) -> None:
    try:
        async with asyncio.timeout(_DATABASE_S), runtime.engine.begin() as connection:
            process_id = runtime.ledger.process_id
            used = await quote_store.use(connection, quote_id, call.id, process_id)
    except DATABASE_AWAY as error:
        give_back_later(call, runtime)  # it may have committed
        raise _away(error, runtime) from None
    except BaseException:
        give_back_later(call, runtime)
        raise
    if not used:
        _require_open(await _find(call, quote_id, runtime))
        raise _used()  # and given back just now


def _decide(promised: Promise, wanted: Requirements, runtime: Runtime) -> Decision:
    market = quoted_market(promised, runtime.market)
    chance = (runtime.random, runtime.now_s())
    stages, asked, limits = promised.stages, wanted, runtime.routing
    as_quoted = wanted.model == promised.wanted.model
    if stages is not None:
        as_quoted = as_quoted or wanted.model in (AUTO, stages.cascade.named)
    if stages is not None and as_quoted:
        # Of a cascade any that was quoted may be asked, and all that were.
        asked = msgspec.structs.replace(wanted, model=AUTO)
        limits = replace(limits, attempts_max=len(promised.offers))
    decided = route(asked, market, runtime.pulse, limits, chance)
    decision = None if decided is None else kept(promised, wanted, decided)
    if decision is not None and decision.plan and stages is not None:
        return within(in_stages(promised, stages, decision), wanted.max_cost_nanos)
    if decision is not None and (decision.plan or decision.rejected.size):
        return decision
    if as_quoted:
        return undecided(promised.price_version)  # all that were quoted have left the market
    raise QuoteRefused(
        f"No endpoint of the quote is '{wanted.model}'.", code="quote_mismatch", status=400
    )


def _require_open(quote: Quote) -> None:
    if quote.used_by is not None:
        raise _used(quote.used_by)
    if quote.has_expired:
        raise QuoteRefused(
            f"The quote was firm until {quote.expires_at:%Y-%m-%d %H:%M:%S} UTC.",
            code="quote_expired",
            status=410,
        )


async def _require_counted(call: Call, quote: Quote, decision: Decision, runtime: Runtime) -> None:
    """Refuse a prompt that an endpoint's own tokenizer finds too long, before it is sent."""
    body = call.body
    if not isinstance(body, OpenAiBody):
        return
    for each in decision.plan:
        endpoint = runtime.market.endpoint(each.number)
        prompt = body.prompt_text() if endpoint.tokenizer_json is not None else None
        if prompt is None:
            continue
        counted = await runtime.tokens.count_beside(endpoint.id, prompt)
        if counted is not None and counted > quote.promise.tokens_in:
            raise exceeded("tokens_in", counted, quote.promise.tokens_in)


def _used(call_id: UUID | None = None) -> QuoteRefused:
    by = "another call" if call_id is None else f"call {call_id}"
    facts = {} if call_id is None else {"call_id": str(call_id)}
    return QuoteRefused(f"The quote was used by {by}.", code="quote_used", facts=facts)


def _away(error: BaseException, runtime: Runtime) -> Unavailable:
    runtime.ledger.outage.met(error)
    return Unavailable("The ledger is away; nothing was charged.", retry_after_s=_RETRY_AFTER_S)
