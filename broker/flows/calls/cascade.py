"""Answers a call by one model and, where that is not good enough, by the next.

One plan, one hold that covers all of it, one settlement with a line for each answer that is paid.
An answer is judged before the caller has any of it: until then another may take its place. What
streams and is longer than may be held back, or comes from the last who can be asked, goes out as
it comes, and what it was worth is told at its end. Nothing of any answer is kept.
"""

from __future__ import annotations

import asyncio

import msgspec

from broker.core.call import Call
from broker.core.cascade import Below, Cascade, Judged
from broker.core.chain import Chain
from broker.core.dispatch import Attempt
from broker.core.outcome import Fault, Outcome
from broker.errors import ProviderFailed
from broker.flows.calls.exchange import StreamedAnswer, Verdict, WholeAnswer, told
from broker.flows.calls.failure import failure_of
from broker.flows.calls.judge_answer import judge, look_at
from broker.flows.calls.overhear import Reply, delivered_so_far, overhear
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed
from pricing.money import format_usd


async def climb(tab: Tab) -> WholeAnswer | StreamedAnswer:
    """Make attempts until an answer is kept. Raises what `failure_of` returns where there is none
    to deliver: that costs nothing; and ProviderFailed with code `confidence_too_low` where the
    caller wants none that is below: what was judged is paid as the caller has said."""
    last: Reply | None = None
    cut: Reply | None = None
    try:
        while (attempt := tab.begin()) is not None:
            if attempt.delay_s:
                await asyncio.sleep(attempt.delay_s)
            try:
                reply = await overhear(tab, attempt, held=_is_held(tab, attempt))
            except AttemptFailed as failure:
                tab.end(failure.outcome)
                continue
            if await _is_enough(tab, reply):
                last = reply
                break
            if reply.ended:
                last = reply
            else:
                cut = reply
            if not tab.dispatch.go_on():
                break
    except BaseException:
        tab.forgo_but(None)  # the caller, who may have left, gets nothing
        raise
    if last is None:
        raise await _nothing(tab, cut) or failure_of(tab)
    return await _delivered(tab, last)


async def _nothing(tab: Tab, cut: Reply | None) -> ProviderFailed | None:
    """Return the refusal of the latest answer that was cut, if that was below what the caller wants
    at all; None otherwise, and then nothing is charged."""
    cascade = _cascade(tab.call)
    if cut is not None and cut.attempt.judged is not None and cascade.below is Below.REFUSE:
        verdict = _verdict(tab, cut.attempt.judged, cut)
        if _is_below(cascade, verdict):
            return await _refused(tab, cascade, cut, verdict)
    tab.forgo_but(None)
    return None


def _is_held(tab: Tab, attempt: Attempt) -> bool:
    """True where an answer is judged before the caller has any of it."""
    cascade = _cascade(tab.call)
    closes = cascade.below is Below.REFUSE and cascade.keep_from is not None
    return closes or not (cascade.keeps_any or _is_last(tab, attempt))


def _is_last(tab: Tab, attempt: Attempt) -> bool:
    chain = tab.decision
    assert isinstance(chain, Chain)
    return chain.stage_of(attempt.candidate) + 1 == len(chain.keep_from)


async def _is_enough(tab: Tab, reply: Reply) -> bool:
    """Judge an answer; True where it is to be delivered. What goes out as it comes, is."""
    attempt = reply.attempt
    if not (reply.ended or attempt.held_back):
        return True
    try:
        if reply.ended:
            await tab.end_counted(Outcome(status=200), delivered_so_far(reply, tab))
        last = _is_last(tab, attempt)
        judged = await judge(tab, reply, compares=not last)
        goes_out = reply.beyond and _cascade(tab.call).below is not Below.REFUSE
        if goes_out and not judged.kept:
            reason = f"{judged.reason}, but it is longer than may be held back"
            judged = msgspec.structs.replace(judged, kept=True, reason=reason)
        attempt.judged = judged
        attempt.notes.append(f"{'kept' if judged.kept else 'not kept'}: {judged.reason}")
        if not (judged.kept or reply.ended):
            reply.cut()
            await tab.end_counted(Outcome(status=200), delivered_so_far(reply, tab))
    except BaseException:
        reply.cut()
        raise
    return judged.kept


async def _delivered(tab: Tab, reply: Reply) -> WholeAnswer | StreamedAnswer:
    """Return an answer as the caller gets it: flagged, without what was asked for the broker."""
    cascade, attempt = _cascade(tab.call), reply.attempt
    tab.choose(attempt)
    if not cascade.pays_all:
        tab.forgo_but(attempt)
    verdict = None if attempt.judged is None else _verdict(tab, attempt.judged, reply)
    if verdict is not None and cascade.below is Below.REFUSE and _is_below(cascade, verdict):
        raise await _refused(tab, cascade, reply, verdict)
    if isinstance(reply.answer, WholeAnswer):
        assert verdict is not None
        return _as_whole(cascade, reply, reply.answer, verdict)
    if attempt.held_back:
        attempt.held_back, attempt.released_s = False, tab.runtime.now_s()
    if not reply.ended:
        reply.answer.at_end = lambda: _verdict_at_end(tab, reply)
    reply.answer.verdict = verdict
    return reply.answer


def _verdict(tab: Tab, judged: Judged, reply: Reply) -> Verdict:
    outcomes = [each.outcome for each in tab.dispatch.attempts if not each.beside]
    answers = sum(each is None or each.delivered for each in outcomes)
    told_now = Verdict(judged.chance, reply.beyond, answers)
    below = _is_below(_cascade(tab.call), told_now)
    return msgspec.structs.replace(told_now, flagged=below or reply.beyond)


def _verdict_at_end(tab: Tab, reply: Reply) -> Verdict:
    """Judge an answer that has gone out, for its caller to know."""
    reply.ended = True
    attempt, before = reply.attempt, reply.attempt.judged
    judged = look_at(tab, reply)
    if before is None:
        why = "there is nobody else to ask" if _is_last(tab, attempt) else "any is kept"
        reason = f"{judged.reason}it went out as it came, for {why}"
        attempt.judged = msgspec.structs.replace(judged, reason=reason)
        attempt.notes.append(f"kept: {reason}")
    return _verdict(tab, judged, reply)


def _is_below(cascade: Cascade, verdict: Verdict) -> bool:
    least = cascade.keep_from
    return least is not None and (verdict.confidence is None or verdict.confidence < least)


async def _refused(tab: Tab, cascade: Cascade, reply: Reply, verdict: Verdict) -> ProviderFailed:
    """Return the refusal of an answer that is below, of which nothing goes out; it is paid as far
    as it came where all are."""
    reply.cut()
    judged, least = reply.attempt.judged, f"{cascade.keep_from:g} that was asked for"
    if judged is not None:
        reason = f"{judged.reason}; it is below the {least}"
        reply.attempt.judged = msgspec.structs.replace(judged, kept=False, reason=reason)
        reply.attempt.notes.append(f"refused: it is below the {least}")
    if not reply.ended:
        outcome = Outcome(Fault.CALLER_LEFT, detail="confidence_too_low")
        try:
            await tab.end_counted(outcome, delivered_so_far(reply, tab))
        except asyncio.CancelledError:
            tab.forgo_but(None)
            raise
    if not cascade.pays_all:
        tab.forgo_but(None)
    return ProviderFailed(
        f"No answer reached the confidence of {least}.",
        code="confidence_too_low",
        facts={"confidence": verdict.confidence, "cost_usd": format_usd(tab.charge_nanos)},
    )


def _as_whole(cascade: Cascade, reply: Reply, whole: WholeAnswer, verdict: Verdict) -> WholeAnswer:
    assert reply.parts is not None
    body = reply.parts.whole(told(verdict), hides_logprobs=cascade.hides_logprobs)
    return msgspec.structs.replace(whole, body=body, verdict=verdict)


def _cascade(call: Call) -> Cascade:
    assert call.cascade is not None
    return call.cascade
