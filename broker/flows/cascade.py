"""Answers a call by one model and, where that is not good enough, by the next.

One plan, one hold that covers all of it, one settlement with a line for each answer that is paid.
How sure an answer is follows from its tokens' probabilities, which are asked for and taken out
again unless the caller asked for them too, and from its form. Nothing of either answer is kept.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np

from broker.core.answer_checks import find_flaw
from broker.core.call import Call, OpenAiBody
from broker.core.cascade import USUAL, Cascade, Kept, above, confidence_of, worth_it
from broker.core.catalog import Task
from broker.core.decision import Candidate, Decision
from broker.core.dispatch import Attempt
from broker.core.outcome import Fault, Outcome
from broker.errors import BrokerError, NothingFits, ProviderFailed
from broker.flows.decide import choose
from broker.flows.exchange import WholeAnswer, read_whole
from broker.flows.runtime import Runtime
from broker.flows.tab import Tab
from broker.upstream.faults import AttemptFailed, malformed
from pricing.money import PICOS_PER_NANO, format_usd

STAGES_AUTO: Final = 2
PRICE: Final = 0.1
"""What the next answer costs of a good one's worth, where the caller does not say what that is."""
FLAWED: Final = 0.05
"""P(good) of an answer of a form other than asked for."""
_ASKED: Final = {Task.CHAT: b"true", Task.COMPLETION: b"1"}


class Chain(Decision, frozen=True, eq=False):
    """A decision of which each candidate may be asked, and paid, once."""

    keep_from: tuple[float, ...] = ()
    """From which chance on an answer is kept, by place in the plan; empty: by benefit."""

    @property
    def hold_nanos(self) -> int:
        """All of the plan."""
        return sum(each.ceiling_nanos for each in self.plan)


class _Answered(msgspec.Struct, frozen=True):
    """An answer as it came, and all that is in it."""

    whole: WholeAnswer
    content: dict[str, Any]


_content: Final = msgspec.json.Decoder(dict[str, Any]).decode


def lay_out(call: Call, first: Decision, runtime: Runtime) -> tuple[Call, Decision]:
    """Return the call as it is sent, and whom it goes to, one of each stage.

    `first` is the decision of the first stage. Raises NothingFits where the whole chain may cost
    more than the caller allows, ModelUnknown.
    """
    cascade = call.cascade
    assert cascade is not None
    if cascade.stages:
        chain = _chained(call, cascade, first, runtime)
    else:
        chain = _joined([first], _best_then_better(first), ())
    most = call.wanted.max_cost_nanos
    if most is not None and chain.hold_nanos > most:
        raise NothingFits(
            f"All answers of this cascade may cost {format_usd(chain.hold_nanos)} USD together, "
            "which is above broker.max_cost.",
            code="nothing_within_price",
        )
    return _asking_for_logprobs(call), chain


async def climb(tab: Tab, failure_of: Callable[[Tab], BrokerError]) -> WholeAnswer:
    """Make attempts until an answer is kept. Raises what `failure_of` returns where none came, and
    ProviderFailed with code `confidence_too_low` where the caller wants none that is below."""
    cascade = tab.call.cascade
    assert cascade is not None
    last: tuple[Attempt, _Answered, float | None] | None = None
    while (attempt := tab.begin()) is not None:
        try:
            answer = await _read(tab, attempt)
        except AttemptFailed as failure:
            tab.end(failure.outcome)
            continue
        except asyncio.CancelledError:
            if last is not None and not cascade.pays_all:
                tab.forgo(last[0])  # the caller has left, and kept nothing
            raise
        chance, why = _chance(tab, answer)
        kept = _is_kept(tab, attempt, chance)
        attempt.notes.append(f"{'kept' if kept.kept else 'not kept'}: {why}{kept.reason}")
        tab.end(Outcome(status=answer.whole.status), answer.whole.delivered)
        if last is not None and not cascade.pays_all:
            tab.forgo(last[0])
        last = attempt, answer, chance
        if kept.kept or not tab.dispatch.go_on():
            break
    if last is None:
        raise failure_of(tab)
    tab.keep_attempt(last[0])
    return _delivered(tab, cascade, last[1], last[2])


def _chained(call: Call, cascade: Cascade, first: Decision, runtime: Runtime) -> Chain:
    """Plan the best of each stage that no stage before has taken; a stage that nobody can serve at
    the moment is left out."""
    decisions, plan, least = [first], [first.plan[0]], [cascade.stages[0].keep_from]
    for stage in cascade.stages[1:]:
        wanted = msgspec.structs.replace(call.wanted, model=stage.model)
        decision = choose(wanted, runtime)
        taken = {each.number for each in plan}
        free = [each for each in decision.plan if each.number not in taken]
        if free:
            decisions.append(decision)
            plan.append(free[0])
            least.append(stage.keep_from)
    return _joined(decisions, tuple(plan), tuple(least))


def _best_then_better(decision: Decision) -> tuple[Candidate, ...]:
    """Return the best candidate, then the one of the best expected quality of the others."""
    first, *others = decision.plan
    better = sorted(others, key=lambda each: -_figure(decision, each, 1))
    return (first, *better[: STAGES_AUTO - 1])


def _figure(decision: Decision, candidate: Candidate, row: int) -> float:
    rows = decision._rows  # noqa: SLF001 - a chain is a decision
    place = np.flatnonzero(decision.eligible == candidate.number)
    return float(rows[row][place[0]]) if place.size else 0.0


def _joined(
    decisions: list[Decision], plan: tuple[Candidate, ...], least: tuple[float, ...]
) -> Chain:
    rows = np.concatenate([each._rows for each in decisions], axis=1)  # noqa: SLF001 - as above
    eligible, places = np.unique(
        np.concatenate([each.eligible for each in decisions]), return_index=True
    )
    first = decisions[0]
    return Chain(
        plan, eligible, rows[:, places], first.rejected, first.reasons, first.price_version, least
    )


def _asking_for_logprobs(call: Call) -> Call:
    body = call.body
    assert isinstance(body, OpenAiBody)
    assert call.cascade is not None
    if _asked_by_caller(body):
        return call
    raw = msgspec.Raw(_ASKED[call.wanted.task])
    members = {**body.members, "logprobs": raw}
    return msgspec.structs.replace(
        call,
        body=msgspec.structs.replace(body, members=members),
        cascade=msgspec.structs.replace(call.cascade, hides_logprobs=True),
    )


def _asked_by_caller(body: OpenAiBody) -> bool:
    raw = body.members.get("logprobs")
    return raw is not None and bytes(raw) not in (b"false", b"null")


async def _read(tab: Tab, attempt: Attempt) -> _Answered:
    """Make an attempt, and read all of its answer. Raises AttemptFailed."""
    whole = await _read_whole(tab, attempt)
    try:
        return _Answered(whole, _content(whole.body))
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed(f"an answer that cannot be read: {error}", 200) from None


async def _read_whole(tab: Tab, attempt: Attempt) -> WholeAnswer:
    """Ask; without asking for probabilities where the server does not take that."""
    asking, body = tab.call, tab.call.body
    assert isinstance(body, OpenAiBody)
    assert asking.cascade is not None
    try:
        return await read_whole(tab, attempt)
    except AttemptFailed as failure:
        refused = failure.outcome.fault is Fault.CALLER_FAULT
        if not (refused and asking.cascade.hides_logprobs):
            raise
    members = {name: raw for name, raw in body.members.items() if name != "logprobs"}
    plain = msgspec.structs.replace(body, members=members)
    tab.call = msgspec.structs.replace(asking, body=plain)
    try:
        return await read_whole(tab, attempt)
    finally:
        tab.call = asking


def _chance(tab: Tab, answer: _Answered) -> tuple[float | None, str]:
    """Return P(good) of an answer, None where nothing tells, and what told."""
    body = tab.call.body
    assert isinstance(body, OpenAiBody)
    flaw = find_flaw(body.members, answer.whole.body)
    if flaw is not None:
        return FLAWED, f"its form is at fault ({flaw.value}), "
    confidence = confidence_of(_logprobs(answer.content))
    return None if confidence is None else USUAL.chance(confidence), ""


def _logprobs(answer: Any) -> list[float]:
    """Return the log-probabilities of the tokens of the first choice."""
    try:
        told = answer["choices"][0]["logprobs"]
        found = told.get("token_logprobs") or [each["logprob"] for each in told["content"]]
        return [float(each) for each in found if each is not None]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        return []


def _is_kept(tab: Tab, attempt: Attempt, chance: float | None) -> Kept:
    chain = tab.decision
    assert isinstance(chain, Chain)
    place = chain.plan.index(attempt.candidate)
    if chain.keep_from:
        return above(chance, chain.keep_from[place])
    if place + 1 >= len(tab.decision.plan):
        return Kept(True, "there is nobody else to ask")
    following = tab.decision.plan[place + 1]
    quality, price = _figure(tab.decision, following, 1), PRICE
    worth = tab.call.wanted.value_nanos
    if worth:
        cost_nanos = _figure(tab.decision, following, -1) / PICOS_PER_NANO
        price = min(cost_nanos / worth, 1.0)
    return worth_it(chance, quality, price)


def _delivered(tab: Tab, cascade: Cascade, answer: _Answered, chance: float | None) -> WholeAnswer:
    """Return an answer as the caller gets it: flagged, without what was asked for the broker."""
    least = cascade.keep_from
    below = least is not None and (chance is None or chance < least)
    if below and cascade.refuses:
        if tab.kept is not None and not cascade.pays_all:
            tab.forgo(tab.kept)
        raise ProviderFailed(
            f"No answer reached the confidence of {least:.2f} that was asked for.",
            code="confidence_too_low",
            facts={"confidence": chance},
        )
    told = answer.content
    outcomes = [each.outcome for each in tab.dispatch.attempts]
    told["broker"] = {
        "confidence": None if chance is None else math.floor(chance * 10_000) / 10_000,
        "flagged": below,
        "answers": sum(each is not None and each.fault is None for each in outcomes),
    }
    if cascade.hides_logprobs:
        for choice in told.get("choices") or ():
            if isinstance(choice, dict):
                choice.pop("logprobs", None)
    body = msgspec.json.encode(told)
    return msgspec.structs.replace(answer.whole, body=body, confidence=chance)
