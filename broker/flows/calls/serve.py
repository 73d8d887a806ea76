"""Serves one request: decide, reserve, forward, settle. Read it from top to bottom.

A whole answer has been settled when `serve` returns it. A stream settles itself before its last
piece; whoever stops listening before cancels the work upstream and pays for what was delivered.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import msgspec

from broker.core import story
from broker.core.answers.transcript import Transcript
from broker.core.call import Call, OpenAiBody, TensorBody
from broker.core.decision import Decision, undecided
from broker.core.dispatch import Attempt
from broker.core.market import Market
from broker.core.outcome import Fault, Outcome
from broker.core.several import several
from broker.errors import BrokerError, ModelUnknown, NothingFits, QuoteRefused
from broker.flows.calls.cascade import climb
from broker.flows.calls.decide import refusal
from broker.flows.calls.exchange import (
    LongAnswer,
    StreamedAnswer,
    WholeAnswer,
    open_stream,
    read_or_open,
    read_whole,
)
from broker.flows.calls.failure import failure_of
from broker.flows.calls.hedge import Make, race
from broker.flows.calls.inspect_answer import inspect, is_drawn
from broker.flows.calls.log_refusal import log_refusal
from broker.flows.calls.passage import Passage
from broker.flows.calls.plan_cascade import choose_first, lay_out
from broker.flows.calls.recognise import goes_by_prompt, recognise
from broker.flows.calls.redeem import redeem, require_ours, unavailable
from broker.flows.calls.reserve import reserve
from broker.flows.calls.settle import settle, settle_later
from broker.flows.calls.stay import stay
from broker.flows.calls.stream import Stream
from broker.flows.calls.tab import Tab
from broker.flows.calls.turn import Turn
from broker.flows.runtime import Runtime
from broker.upstream.faults import AttemptFailed


async def serve(
    call: Call, runtime: Runtime, turn: Turn | None = None, *, known: bool = False
) -> tuple[Tab, WholeAnswer | Stream | Passage]:
    """Serve one call. Raises a BrokerError when it cannot be served; then nothing is charged but
    answers of a cascade that were all below what is wanted, where all are paid.

    `turn` is that of a call under an `Idempotency-Key`; `known` is True once all that is known of
    the call beside what it says has been added to it.
    """
    wanted = call.wanted
    if wanted.quote_id is None:
        if not known and _may_be_known(call):
            return await _serve_known(call, runtime, turn)
        market = runtime.market
        call, decision = _decide(call, runtime)
    else:
        call, decision, market = await _redeem(call, wanted.quote_id, runtime)
    decision = story.thin(decision)
    bound = turn is not None or wanted.quote_id is not None
    call, hold = await reserve(call, decision, market, runtime, bound=bound)
    tab = Tab(call, decision, hold, market, runtime, turn)
    try:
        if turn is not None:
            await turn.stands()
        if call.wanted.quote_id is not None:
            await require_ours(call, call.wanted.quote_id, runtime)
        answer = await _forward(tab)
        if not isinstance(answer, WholeAnswer):
            return tab, _rest(tab, answer)
        if turn is not None:
            await tab.keep_answer(answer.headers, answer.body)
        await settle(tab, answer.status, "served")
        return tab, answer
    except BrokerError as error:
        error.call_id = call.id_text
        # One that could not even be asked, say for its address: its attempt is still under way.
        tab.end(Outcome(Fault.CALLER_LEFT, detail=error.code))
        await settle(tab, error.status, error.code)
        raise
    except asyncio.CancelledError:
        tab.end(Outcome(Fault.CALLER_LEFT))
        settle_later(tab, 499, "caller_left")
        raise
    except BaseException:
        tab.end(Outcome(Fault.CALLER_LEFT, detail="internal error"))
        settle_later(tab, 500, "internal_error")
        raise


def _may_be_known(call: Call) -> bool:
    """True where more may be known of a call than it says: see `_serve_known`."""
    known = call.session_id is not None or call.wanted.paced
    return known or goes_by_prompt(call.wanted, call.cascade)


async def _serve_known(
    call: Call, runtime: Runtime, turn: Turn | None
) -> tuple[Tab, WholeAnswer | Stream | Passage]:
    """Serve a call by what is known of its key's budget, its conversation and its prompt."""
    call = await _paced(call, runtime)
    if call.session_id is not None:
        call = await stay(call, call.session_id, runtime)
    if not goes_by_prompt(call.wanted, call.cascade):
        return await serve(call, runtime, turn, known=True)
    # Last, for what is known of a prompt holds for the market of this very moment.
    tab, answer = await serve(recognise(call, runtime), runtime, turn, known=True)
    if isinstance(answer, WholeAnswer) and is_drawn(tab):
        inspect(tab, answer.body, answer.headers)
    return tab, answer


async def _paced(call: Call, runtime: Runtime) -> Call:
    """Return the call with what an answer is worth to its key's budget, where that is to say so."""
    if not call.wanted.paced:
        return call
    wanted = await runtime.pacer.pace(call.wanted, call.payer.key_id, runtime.clock())
    return msgspec.structs.replace(call, wanted=wanted)


def _decide(call: Call, runtime: Runtime) -> tuple[Call, Decision]:
    """Choose, and plan for all that may be paid; a refusal is logged."""
    try:
        wanted, cascade, decision = choose_first(call.wanted, call.cascade, runtime)
    except ModelUnknown as error:
        raise log_refusal(error, call, undecided(runtime.market.book.version), runtime) from None
    if wanted is not call.wanted:
        call = msgspec.structs.replace(call, wanted=wanted, cascade=cascade)
    if not decision.plan:
        raise log_refusal(refusal(call.wanted, decision, runtime), call, decision, runtime)
    if call.wanted.paced:
        runtime.pacer.saw(call.payer.key_id, decision)
    if call.cascade is not None or call.hedges or call.continues:
        return _lay_out(call, decision, runtime)
    return call, decision


def _lay_out(call: Call, first: Decision, runtime: Runtime) -> tuple[Call, Decision]:
    """Plan for several attempts that are paid, such as a cascade's; a refusal is logged."""
    if call.cascade is None:
        most = call.wanted.max_cost_nanos
        return call, several(first, hedges=call.hedges, continues=call.continues, most=most)
    try:
        return lay_out(call, first, runtime)
    except BrokerError as error:
        raise log_refusal(error, call, first, runtime) from None


async def _redeem(call: Call, quote_id: UUID, runtime: Runtime) -> tuple[Call, Decision, Market]:
    """Go by the call's firm quote; a refusal is logged."""
    call = await _paced(call, runtime)
    try:
        call, decision, market = await redeem(call, quote_id, runtime)
    except (ModelUnknown, NothingFits, QuoteRefused) as error:
        raise log_refusal(error, call, undecided(runtime.market.book.version), runtime) from None
    if not decision.plan:
        raise log_refusal(unavailable(decision, runtime), call, decision, runtime)
    if call.wanted.paced:
        runtime.pacer.saw(call.payer.key_id, decision)
    if goes_by_prompt(call.wanted, call.cascade):
        # The quote has decided; its domain is for what is said of the answer to teach.
        call = recognise(call, runtime)
    return call, decision, market


async def _forward(tab: Tab) -> WholeAnswer | StreamedAnswer | LongAnswer:
    """Make attempts until one commits: at its whole body, at the first content of a stream, or at
    the first byte of what is too long to wait for."""
    if tab.call.cascade is not None:
        return await climb(tab)
    body = tab.call.body
    streams = isinstance(body, OpenAiBody) and body.stream
    hedges = tab.call.hedges
    make: Make = _open if streams else read_whole
    # What is kept for replays, or raced for, is read whole however long it is.
    may_pass = isinstance(body, TensorBody) and tab.turn is None and not hedges
    while (attempt := tab.begin()) is not None:
        if attempt.delay_s:
            await asyncio.sleep(attempt.delay_s)
        try:
            answer: WholeAnswer | StreamedAnswer | LongAnswer
            if may_pass:
                answer = await read_or_open(tab, attempt)
            else:
                answer = await (race(tab, attempt, make) if hedges else make(tab, attempt))
        except AttemptFailed as failure:
            tab.end(failure.outcome)
            continue
        if not isinstance(answer, WholeAnswer):
            return answer
        if tab.endpoint.tokenizer_json is not None:
            await tab.end_counted(Outcome(status=answer.status), answer.delivered)
        else:
            tab.end(Outcome(status=answer.status), answer.delivered)
        return answer
    raise failure_of(tab)


def _rest(tab: Tab, answer: StreamedAnswer | LongAnswer) -> Stream | Passage:
    return Stream(tab, answer) if isinstance(answer, StreamedAnswer) else Passage(tab, answer)


async def _open(tab: Tab, attempt: Attempt) -> StreamedAnswer:
    """Make an attempt that streams, written down if the lot falls on it. Raises AttemptFailed."""
    return await open_stream(tab, attempt, Transcript() if is_drawn(tab) else None)
