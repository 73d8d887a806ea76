"""Says why a call was not served whose attempts have all failed."""

from __future__ import annotations

from broker.core.dispatch import Attempt, End
from broker.core.outcome import Fault
from broker.errors import BrokerError, DeadlinePassed, ProviderFailed, ProviderRefused, Unavailable
from broker.flows.calls.tab import Tab


def failure_of(tab: Tab) -> BrokerError:
    """Return the error for a call whose attempts have all failed, or that had no time for one."""
    facts = {"attempts": _told(tab)}
    attempts = tab.dispatch.attempts
    last = attempts[-1].outcome if attempts else None
    doubts = [each.outcome for each in attempts if _is_doubted(each)]
    if doubts and tab.dispatch.end is not End.FINAL:
        last = doubts[-1]  # nobody has said anything better
    if last is not None and (tab.dispatch.end is End.FINAL or doubts):
        return ProviderRefused(
            f"The provider refused the request: {last.said}",
            status=last.status or 400,
            facts=facts,
        )
    if tab.dispatch.end is End.DEADLINE:
        return DeadlinePassed("The deadline passed before a provider had answered.", facts=facts)
    if last is not None and last.fault is Fault.NO_ROOM:
        detail = f"The broker itself has too much to do: {last.detail}."
        return Unavailable(detail, code="no_room", retry_after_s=1.0, facts=facts)
    return ProviderFailed(
        f"No provider delivered an answer in {len(attempts)} attempts.", facts=facts
    )


def _is_doubted(attempt: Attempt) -> bool:
    return attempt.outcome is not None and attempt.outcome.fault is Fault.DOUBTED


def _told(tab: Tab) -> list[dict[str, object]]:
    return [
        {
            "endpoint": tab.market.endpoint(each.candidate.number).name,
            "outcome": each.outcome.fault.value,
            "status": each.outcome.status,
        }
        for each in tab.dispatch.attempts
        if each.outcome is not None and each.outcome.fault is not None
    ]
