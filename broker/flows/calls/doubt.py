"""Doubts a refusal of a request where the endpoint refuses far more than those beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from broker.core.dispatch import Attempt
from broker.core.outcome import Fault, Outcome

if TYPE_CHECKING:
    from broker.flows.calls.tab import Tab


def doubted(tab: Tab, attempt: Attempt, outcome: Outcome, now_s: float) -> Outcome:
    """Return how an attempt is to be recorded as having ended: as it did, but a refusal that others
    in the plan may not share is DOUBTED, and one is asked.

    Where an answer has come, those whose refusal was doubted are told to have been wrong.
    """
    if outcome.fault is not None and outcome.fault is not Fault.CALLER_FAULT:
        return outcome
    pulse, number = tab.runtime.pulse, attempt.candidate.number
    objections = pulse.objections
    if outcome.fault is None:
        if objections.shares:
            objections.note(number, objected=False)
            _contradict(tab, now_s)
        return outcome
    if len(tab.decision.plan) < 2:
        return outcome
    objections.note(number, objected=True)
    others = [each.number for each in tab.dispatch.untried]
    if objections.is_odd(number, others):
        return msgspec.structs.replace(outcome, fault=Fault.DOUBTED)
    return outcome


def _contradict(tab: Tab, now_s: float) -> None:
    for each in tab.dispatch.attempts:
        if each.outcome is not None and each.outcome.fault is Fault.DOUBTED:
            tab.runtime.pulse.contradict(each.candidate.number, now_s)
