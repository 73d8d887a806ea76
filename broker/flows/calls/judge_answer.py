"""Judges an answer of a cascade: how likely it is to be good, and whether it is kept.

By how sure its model was, by its form, and by another answer where one was asked for. Nothing of
either answer's text is kept.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from broker.core.answers.answer_checks import Flaw, find_flaw, is_refusal
from broker.core.answers.grading import likeness
from broker.core.answers.transcript import BYTES_MAX
from broker.core.call import Call, OpenAiBody
from broker.core.cascade import (
    AS_USUAL,
    FLAWED,
    SAMPLE,
    USUAL,
    Curve,
    Judged,
    Kept,
    Other,
    above,
    agreed,
    confidence_of,
    following_when,
    worth_it,
)
from broker.core.chain import Chain
from broker.core.decision import Candidate
from broker.core.dispatch import Attempt
from broker.core.outcome import Outcome
from broker.flows.calls.overhear import LOGPROBS, Reply, asking_as, delivered_so_far, overhear_whole
from broker.flows.calls.tab import Tab
from broker.upstream.faults import AttemptFailed

COMPARED_CHARACTERS_MAX: Final = 100_000
"""Of two answers; more would be tenths of seconds of work."""
PRICE: Final = 0.1
"""What the next answer costs of a good one's worth, where the caller does not say what that is."""
_LIVELY: Final = msgspec.Raw(b"0.7")
"""The temperature of a second answer where the caller wants 0: it would be the same."""
_COLD: Final = frozenset({b"0", b"0.0"})
_NOT_AGAIN: Final = LOGPROBS | {"seed"}


async def judge(tab: Tab, reply: Reply, *, compares: bool) -> Judged:
    """Judge an answer that may be followed by another; one that came whole has ended its attempt.

    It may be compared with another, which is asked for.
    """
    judged = look_at(tab, reply)
    asks = tab.call.cascade is not None and tab.call.cascade.agreement is not None
    if compares and asks and reply.ended and judged.flaw is None:
        candidate = _other(tab, reply.attempt)
        agreement = None if candidate is None else await _agreement(tab, reply, candidate)
        if candidate is not None and agreement is not None:
            judged = _compared(tab, judged, agreement, (reply.attempt.candidate, candidate))
    kept = _is_kept(tab, reply.attempt, judged)
    return msgspec.structs.replace(judged, kept=kept.kept, reason=judged.reason + kept.reason)


def _compared(
    tab: Tab, judged: Judged, agreement: float, both: tuple[Candidate, Candidate]
) -> Judged:
    """Return what is thought of an answer that agrees so far with another; `both` gave them."""
    first, second = (tab.market.endpoint(each.number).model for each in both)
    other = Other.SAMPLE if first == second else Other.MODEL
    curve = agreement_of(tab, both[0], other)
    unlearned = "" if curve != AS_USUAL else "what agreement is worth here is not learned yet, "
    return msgspec.structs.replace(
        judged,
        chance=agreed(judged.chance, agreement, curve),
        agreement=agreement,
        compared=other,
        reason=judged.reason + unlearned,
    )


def look_at(tab: Tab, reply: Reply) -> Judged:
    """Return what an answer shows of itself, as far as it came."""
    cascade, body = tab.call.cascade, tab.call.body
    assert cascade is not None
    assert isinstance(body, OpenAiBody)
    flaw = _flaw(body, reply)
    enough = None if reply.ended else cascade.decide_after_tokens
    logprobs = reply.logprobs[:enough]
    confidence = confidence_of(logprobs)
    chance, reason = None, ""
    if flaw is not None:
        chance, reason = FLAWED, f"its form is at fault ({flaw.value}), "
    elif confidence is not None:
        chance = curve_of(tab, reply.attempt).chance(confidence)
    tokens = None if reply.ended else len(logprobs)
    told = None if flaw is None else flaw.value
    return Judged(True, reason, confidence, chance, told, tokens=tokens)


def curve_of(tab: Tab, attempt: Attempt) -> Curve:
    """Return how the confidence of an attempt's endpoint is read."""
    lessons = tab.market.lessons
    if lessons is None:
        return USUAL
    return lessons.curve(attempt.candidate.number, tab.call.wanted.domain)


def agreement_of(tab: Tab, candidate: Candidate, other: Other) -> Curve:
    """Return what it adds when another answer, of `other`, agrees with a candidate's."""
    lessons = tab.market.lessons
    if lessons is None:
        return AS_USUAL
    return lessons.agreement(candidate.number, tab.call.wanted.domain, other)


def _flaw(body: OpenAiBody, reply: Reply) -> Flaw | None:
    if reply.ended and reply.is_known and len(answer := reply.body) <= BYTES_MAX:
        return find_flaw(body.members, answer)
    return Flaw.REFUSED if is_refusal(reply.text) else None


def _other(tab: Tab, attempt: Attempt) -> Candidate | None:
    """Return who is to answer a second time; None where nobody can."""
    chain, cascade = tab.decision, tab.call.cascade
    assert isinstance(chain, Chain)
    assert cascade is not None
    if cascade.agreement == SAMPLE:
        return attempt.candidate
    second = chain.second
    return None if second is None or second.number == attempt.candidate.number else second


async def _agreement(tab: Tab, reply: Reply, candidate: Candidate) -> float | None:
    """Return how far a candidate's answer agrees with this one, 0 to 1; None where none came."""
    attempt = tab.begin_beside(candidate)
    if attempt is None:
        return None
    try:
        with asking_as(tab, _once_more(tab.call)):
            other = await overhear_whole(tab, attempt)
    except AttemptFailed as failure:
        attempt.notes.append("asked to compare; no answer came")
        tab.end(failure.outcome)
        return None
    attempt.notes.append("asked to compare")
    await tab.end_counted(Outcome(status=200), delivered_so_far(other, tab))
    texts = [each.text[:COMPARED_CHARACTERS_MAX] for each in (other, reply)]
    return await asyncio.to_thread(likeness, *texts)  # long texts take a tenth of a second


def _once_more(call: Call) -> OpenAiBody:
    """Return the body for a second answer, whole and not by necessity the same."""
    body = call.body
    assert isinstance(body, OpenAiBody)
    members = {name: raw for name, raw in body.members.items() if name not in _NOT_AGAIN}
    if bytes(members.get("temperature", b"")) in _COLD:
        members["temperature"] = _LIVELY
    return msgspec.structs.replace(body, members=members, stream=False)


def _is_kept(tab: Tab, attempt: Attempt, judged: Judged) -> Kept:
    chain, cascade = tab.decision, tab.call.cascade
    assert isinstance(chain, Chain)
    assert cascade is not None
    chance = judged.chance
    stage = chain.stage_of(attempt.candidate)
    least, groups = chain.keep_from[stage], chain.groups
    if stage + 1 >= len(groups) and not least:
        return Kept(True, "there is nobody else to ask")
    if cascade.keeps_any:
        return Kept(True, "any is kept")
    if least is not None:
        return above(chance, least)
    quality, cost_nanos = chain.quality_and_cost(groups[stage + 1][0])
    if judged.flaw is None:  # a form that is at fault does not tell of how hard the prompt is
        expected, _ = chain.quality_and_cost(attempt.candidate)
        quality = following_when(chance, expected, quality)
    price, worth = PRICE, chain.value_nanos
    if worth:
        price = min(cost_nanos / worth, 1.0)
    return worth_it(chance, quality, price)
