"""Doubts a refusal of a request where the endpoint refuses far more than those beside it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from broker.core.decision import Decision
from broker.core.dispatch import Attempt, Dispatch
from broker.core.health.pulse import Pulse
from broker.core.outcome import Fault, Outcome


def doubted(
    outcome: Outcome,
    attempt: Attempt,
    decision: Decision,
    dispatch: Dispatch,
    pulse: Pulse,
    now_s: float,
) -> Outcome:
    """Return how an attempt is to be recorded as having ended: as it did, but a refusal that others
    in the plan may not share is DOUBTED, and one is asked.

    Where an answer has come, those whose refusal was doubted are told to have been wrong.
    """
    if outcome.fault is not None and outcome.fault is not Fault.CALLER_FAULT:
        return outcome
    objections, number = pulse.objections, attempt.candidate.number
    if outcome.fault is None:
        if objections.shares:
            objections.note(number, objected=False)
            _contradict(dispatch.attempts, pulse, now_s)
        return outcome
    if len(decision.plan) < 2:
        return outcome
    objections.note(number, objected=True)
    others = [each.number for each in dispatch.untried]
    if objections.is_odd(number, others):
        return msgspec.structs.replace(outcome, fault=Fault.DOUBTED)
    return outcome


def unfit(outcome: Outcome, dispatch: Dispatch) -> Outcome:
    """Return how an attempt of a call with images is to be recorded as having ended: a refusal is
    DOUBTED as long as another can be asked, for many models take no images.

    Of how often an endpoint refuses what it could read that says nothing, so nobody is told of it.
    """
    if outcome.fault is Fault.CALLER_FAULT and dispatch.untried:
        return msgspec.structs.replace(outcome, fault=Fault.DOUBTED)
    return outcome


def _contradict(attempts: Iterable[Attempt], pulse: Pulse, now_s: float) -> None:
    for each in attempts:
        if each.outcome is not None and each.outcome.fault is Fault.DOUBTED:
            pulse.contradict(each.candidate.number, now_s)
