"""The story of one call in a few kilobytes: demands, scored candidates, rejections, attempts.

It is kept with the call so that every decision can be looked up; what was made of its prompt is
not. Packing must be quick, and nobody
reads most of them: arrays are kept as raw bytes, and ranked when they are read.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

import msgspec
import numpy as np

from broker.core.candidates.eligibility import Rejection
from broker.core.candidates.scoring import PARTS
from broker.core.cascade import Judged
from broker.core.columns import Floats, Numbers
from broker.core.decision import Decision
from broker.core.dispatch import Attempt
from broker.core.handful import Workings
from broker.core.outcome import Fault
from broker.core.requirements import Requirements
from pricing.money import NANOS_PER_USD, PICOS_PER_NANO, format_usd

CANDIDATES_KEPT_MAX = 100
"""The best, and how many more there were; a market may be much larger. Of 1,000, a story is 36 kB,
which took longer to make, and to bring to the database, than the decision among 10,000."""
FORGOTTEN = "forgotten"
REJECTED_KEPT_MAX = 1_000
"""The first, which came nearest to being eligible."""


class _PackedAttempt(msgspec.Struct, array_like=True):
    endpoint_number: int
    started_s: float
    """Since the call began."""
    duration_s: float
    ttft_s: float | None
    fault: Fault | None
    status: int | None
    detail: str
    tokens_in: int
    tokens_out: int
    charge_nanos: int
    notes: list[str]
    judged: Judged | None = None


class _Packed(msgspec.Struct, array_like=True):
    requirements: Any
    """Packed as Requirements, read as a map: a story outlives the names of today's demands."""
    price_version: int
    planned: list[int]
    eligible: bytes
    figures: bytes
    """Scores, parts, costs, and propensities where there are any, in rows."""
    rejected: bytes
    reasons: bytes
    attempts: list[_PackedAttempt]
    end: str
    value_nanos: float | None = None
    """As in `Decision`; the oldest stories have it among the requirements alone."""
    left_out: int = 0


class ScoredCandidate(msgspec.Struct, frozen=True):
    """An eligible endpoint; `parts` are named as in `broker.core.candidates.scoring.PARTS`."""

    endpoint_number: int
    score: float
    parts: dict[str, float]
    expected_cost_usd: str
    propensity: float | None = None
    """The chance to be first; 0 for all where an order was asked for, or a conversation stays."""


class RejectedEndpoint(msgspec.Struct, frozen=True):
    """An endpoint that was not eligible, and why."""

    endpoint_number: int
    reason: str


class Story(msgspec.Struct, frozen=True):
    """What `decode` returns; candidates in rank order."""

    requirements: dict[str, Any]
    price_version: int
    candidates: list[ScoredCandidate]
    rejected: list[RejectedEndpoint]
    attempts: list[dict[str, Any]]
    """Each: endpoint_number, started_ms, duration_ms, ttft_ms, outcome, status, detail, tokens_in,
    tokens_out, charge_usd, notes, judged (of a cascade: what was thought of the answer)."""
    end: str
    groups: str | None = None
    """Of prompts, that the call's was of."""
    left_out: int = 0
    """So many more were eligible, and are not among the candidates told."""


_NUMBER = Struct("<i")
_FIGURES = Struct(f"<{len(PARTS) + 2}f")
_DRAWN = 10.0
"""More than any two scores differ."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


def encode(
    wanted: Requirements,
    decision: Decision,
    attempts: list[Attempt],
    end: str,
    started_s: float,
) -> bytes:
    """Pack a call's story; `started_s` is when the call began, on the attempts' clock."""
    if wanted.prompt is not None:
        wanted = msgspec.structs.replace(wanted, prompt=None)
    plan, rejected, reasons = decision.plan, b"", b""
    # Most have one candidate and one attempt: a comprehension is a frame of its own.
    planned = [plan[0].number] if len(plan) == 1 else [each.number for each in plan]
    if not isinstance(decision.figures, tuple):
        decision = thin(decision)
    eligible, figures = _kept(decision, planned)
    if decision.rejected.size:
        first = slice(REJECTED_KEPT_MAX)
        rejected = decision.rejected[first].astype("<i4").tobytes()
        reasons = decision.reasons[first].astype("i1").tobytes()
    if len(attempts) == 1:
        told = [_packed(attempts[0], started_s)]
    else:
        told = [_packed(each, started_s) for each in attempts]
    version = decision.price_version
    return _encode(
        _Packed(
            *(wanted, version, planned, eligible, figures, rejected, reasons, told, end),
            decision.value_nanos,
            decision.left_out,
        )
    )


def _kept(decision: Decision, planned: list[int]) -> tuple[bytes, bytes]:
    """Return the eligible endpoints and their figures as they are packed."""
    figures = decision.figures
    eligible = decision.eligible
    if isinstance(figures, tuple):
        return _NUMBER.pack(*planned), _FIGURES.pack(*figures)
    if isinstance(figures, Workings):
        figures = figures.figures()
    return eligible.astype("<i4").tobytes(), figures.astype("<f4").tobytes()


def thin(decision: Decision) -> Decision:
    """Return a decision with what its story tells of it, as exactly as it does. The rest is let go
    while the call is under way: among ten thousand endpoints it is 640 kB a call."""
    figures, eligible = decision.figures, decision.eligible
    if isinstance(figures, (tuple, Workings)) or figures.dtype == np.float32:
        return decision
    left_out = decision.left_out
    if eligible.size > CANDIDATES_KEPT_MAX:
        kept = _best(eligible, figures, [each.number for each in decision.plan])
        left_out += eligible.size - kept.size
        # Columns taken so cost a third of `figures[:, kept]`.
        eligible, figures = eligible.take(kept), figures.take(kept, axis=1)
    first = slice(REJECTED_KEPT_MAX)
    return msgspec.structs.replace(
        decision,
        eligible=eligible.astype(np.int32),
        figures=figures.astype(np.float32),
        rejected=decision.rejected[first].astype(np.int32),
        reasons=decision.reasons[first].astype(np.int8),
        left_out=left_out,
    )


def _best(eligible: Numbers, figures: Floats, planned: list[int]) -> Numbers:
    """Return the places of the best of very many, in no order, those that were planned among them.

    They are ranked when they are read: sorting 10,000 took a quarter of a call's time.
    """
    # Whoever might have been first stands before all who could not.
    keys: Floats = figures[0] + _DRAWN * (figures[-1] > 0.0)
    keys[eligible.searchsorted(planned)] = np.inf
    last = keys.size - CANDIDATES_KEPT_MAX
    kept: Numbers = keys.argpartition(last)[last:]
    return kept


def _packed(attempt: Attempt, started_s: float) -> _PackedAttempt:
    outcome = attempt.outcome
    assert outcome is not None, "a story is told when all attempts have ended"
    begun_s, first_s = attempt.started_s, attempt.first_content_s
    return _PackedAttempt(
        attempt.candidate.number,
        begun_s - started_s,
        (attempt.ended_s or begun_s) - begun_s,
        None if first_s is None else first_s - begun_s,
        outcome.fault,
        outcome.status,
        outcome.detail,
        attempt.tokens_in,
        attempt.tokens_out,
        attempt.charge_nanos,
        attempt.notes,
        attempt.judged,
    )


def decode(story: bytes) -> Story:
    """Unpack what `encode` packed; of nothing, which is left of a call of long ago, one that tells
    nothing and ends with FORGOTTEN."""
    if not story:
        return Story({}, 0, [], [], [], FORGOTTEN)
    packed = _decode(story)
    rejected = np.frombuffer(packed.rejected, "<i4").tolist()
    reasons = np.frombuffer(packed.reasons, "i1").tolist()
    return Story(
        _demands(packed.requirements, packed.value_nanos),
        packed.price_version,
        _ranked(packed),
        [
            RejectedEndpoint(number, Rejection(reason).name.lower())
            for number, reason in zip(rejected, reasons, strict=True)
        ],
        [_told(each) for each in packed.attempts],
        packed.end,
        packed.requirements.get("groups"),
        packed.left_out,
    )


def _demands(requirements: dict[str, Any], value_nanos: float | None) -> dict[str, Any]:
    """What was asked for; whose call it was, its record says. The oldest stories have prompts."""
    demands = {
        name: sorted(value) if isinstance(value, list) and name in _SETS else value
        for name, value in requirements.items()
        if name not in ("account_id", "prompt", "groups")
    }
    asked_nanos = requirements.get("value_nanos")
    value_nanos = asked_nanos or value_nanos
    if value_nanos is None:  # weights set no price of money
        demands.pop("preset", None)
        return demands
    demands["score_per_usd"] = NANOS_PER_USD / value_nanos
    by = "budget" if requirements.get("paced") else "value_usd"
    demands["score_per_usd_by"] = by if asked_nanos else requirements.get("preset", by)
    return demands


_SETS = frozenset({"regions", "providers_only", "providers_ignore", "models_only", "domains_only"})


def _ranked(packed: _Packed) -> list[ScoredCandidate]:
    """The candidates: those planned in their order, the others by falling score."""
    eligible = np.frombuffer(packed.eligible, "<i4").tolist()
    rows = np.frombuffer(packed.figures, "<f4").reshape(-1, max(len(eligible), 1))
    figures, drawn = rows[: len(PARTS) + 2], rows[len(PARTS) + 2 :]
    places = {number: place for place, number in enumerate(packed.planned)}
    order = sorted(
        range(len(eligible)),
        key=lambda at: (places.get(eligible[at], len(places)), -figures[0, at]),
    )
    return [
        ScoredCandidate(
            eligible[at],
            round(float(score), 4),
            {name: round(float(part), 4) for name, part in zip(PARTS, parts, strict=True)},
            format_usd(round(float(cost_picos) / PICOS_PER_NANO)),
            float(drawn[0, at]) if len(drawn) else None,
        )
        for at in order
        for score, *parts, cost_picos in [figures[:, at]]
    ]


def _told(attempt: _PackedAttempt) -> dict[str, Any]:
    return {
        "endpoint_number": attempt.endpoint_number,
        "started_ms": round(attempt.started_s * 1_000, 3),
        "duration_ms": round(attempt.duration_s * 1_000, 3),
        "ttft_ms": None if attempt.ttft_s is None else round(attempt.ttft_s * 1_000, 3),
        "outcome": "delivered" if attempt.fault is None else attempt.fault.value,
        "status": attempt.status,
        "detail": attempt.detail,
        "tokens_in": attempt.tokens_in,
        "tokens_out": attempt.tokens_out,
        "charge_usd": format_usd(attempt.charge_nanos),
        "notes": attempt.notes,
        "judged": None if attempt.judged is None else msgspec.structs.asdict(attempt.judged),
    }
