"""What one call's story says of each endpoint: served, refused, outranked or failed, and why.

    refused    a hard filter struck it
    outranked  it was eligible and another was tried before it; the reason is the part of the score
               in which, weighed as the caller asked, it lay furthest behind the best
    failed     it was tried and did not deliver

A call that its caller spoiled or left, or that was refused for want of money, is lost to nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.core.candidates.scoring import PARTS
from broker.core.outcome import Fault
from broker.core.story import ScoredCandidate, Story

RANK_MAX: Final = 10
"""Those further behind are counted with the tenth."""
UNKNOWN: Final = "policy"
"""The reason of a rejection that is not named here: a rule of the caller's or the market's."""

_OF_REJECTION: Final = {
    "not_present": "health",
    "ejected": "health",
    "unpriced": "price",
    "rate_too_high": "price",
    "cost_too_high": "price",
    "quality_too_low": "quality",
    "too_slow": "latency",
    "full": "capacity",
    "context_too_short": "limits",
    "output_too_short": "limits",
}
_OF_PART: Final = {
    "quality": "quality",
    "domain_fit": "quality",
    "cost": "price",
    "latency": "latency",
    "availability": "capacity",
}
_OF_FAULT: Final = {
    Fault.OVERLOADED: "capacity",
    Fault.CONNECT_TIMEOUT: "latency",
    Fault.FIRST_BYTE_TIMEOUT: "latency",
    Fault.IDLE_TIMEOUT: "latency",
    Fault.TOTAL_TIMEOUT: "latency",
    Fault.DEADLINE: "latency",
    Fault.ADDRESS_REFUSED: "policy",
    Fault.NO_ROOM: "capacity",
}
_CALLERS: Final = frozenset({Fault.CALLER_FAULT.value, Fault.CALLER_LEFT.value})
_DELIVERED: Final = "delivered"


class Kind(enum.StrEnum):
    """What became of a call at one endpoint."""

    SERVED = "served"
    REFUSED = "refused"
    OUTRANKED = "outranked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Fate:
    """One endpoint's part of one call; `rank` is its place among the candidates where outranked."""

    endpoint_number: int
    kind: Kind
    reason: str = ""
    detail: str = ""
    rank: int = 0


def fates(story: Story) -> Iterator[Fate]:
    """Yield what became of the call at each endpoint that it concerns, once for each."""
    for rejected in story.rejected:
        reason = _OF_REJECTION.get(rejected.reason, UNKNOWN)
        yield Fate(rejected.endpoint_number, Kind.REFUSED, reason, rejected.reason)
    tried = {each["endpoint_number"]: str(each["outcome"]) for each in story.attempts}
    for number, outcome in tried.items():
        if outcome == _DELIVERED:
            yield Fate(number, Kind.SERVED)
        elif outcome not in _CALLERS:
            yield Fate(number, Kind.FAILED, _reason_of_fault(outcome), outcome)
    if tried and story.candidates:
        yield from _outranked(story, tried)


def _reason_of_fault(outcome: str) -> str:
    return _OF_FAULT.get(Fault(outcome), "health") if outcome in set(Fault) else "health"


def _outranked(story: Story, tried: Mapping[int, str]) -> Iterator[Fate]:
    best, weights = story.candidates[0], story.requirements.get("weights") or {}
    ordered = bool(story.requirements.get("providers_order"))
    for rank, candidate in enumerate(story.candidates, 1):
        if candidate.endpoint_number not in tried:
            part = _furthest_behind(candidate, best, weights)
            reason, detail = _OF_PART.get(part, UNKNOWN), part
            if not part:
                # As good as the best: the draw among the near, or the caller's own order, decided.
                reason, detail = (UNKNOWN, "caller_order") if ordered else ("chance", "draw")
            number = candidate.endpoint_number
            yield Fate(number, Kind.OUTRANKED, reason, detail, min(rank, RANK_MAX))


def _furthest_behind(
    candidate: ScoredCandidate, best: ScoredCandidate, weights: Mapping[str, Any]
) -> str:
    """Return the part of the score that cost most against the best; none where it is no worse."""
    if candidate.score >= best.score:
        return ""
    behind = {
        part: float(weights.get(part, 1.0)) * (best.parts.get(part, 0.0) - own)
        for part, own in candidate.parts.items()
        if part in PARTS
    }
    worst = max(behind, key=lambda part: behind[part], default="")
    return worst if worst and behind[worst] > 0 else ""
