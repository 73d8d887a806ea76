"""The story of one call in a few kilobytes: demands, scored candidates, rejections, attempts.

It is kept with the call so that every decision can be looked up. Arrays are kept as raw bytes: to
pack a hundred candidates costs microseconds, and nobody reads most of them.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from broker.core.dispatch import Attempt
from broker.core.eligibility import Rejection
from broker.core.requirements import Requirements
from broker.core.routing import Decision
from broker.core.scoring import PARTS
from pricing.money import format_usd

CANDIDATES_KEPT_MAX = 1_000
"""Of each, the best candidates and the first rejected; a market may be much larger."""


class _Packed(msgspec.Struct, array_like=True):
    requirements: dict[str, Any]
    price_version: int
    ranking: bytes
    scores: bytes
    rejected: bytes
    reasons: bytes
    attempts: list[dict[str, Any]]
    end: str


class ScoredCandidate(msgspec.Struct, frozen=True):
    """An eligible endpoint; `parts` are named as in `broker.core.scoring.PARTS`."""

    endpoint_number: int
    score: float
    parts: dict[str, float]
    expected_cost_usd: str


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
    tokens_out, charge_usd, notes."""
    end: str


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
    kept = slice(CANDIDATES_KEPT_MAX)
    numbers = np.vstack((decision.scores, decision.parts, decision.costs_nanos))
    return _encode(
        _Packed(
            _demands(wanted),
            decision.price_version,
            decision.ranking[kept].astype("<i4").tobytes(),
            numbers[:, kept].astype("<f4").tobytes(),
            decision.rejected[kept].astype("<i4").tobytes(),
            decision.reasons[kept].astype("i1").tobytes(),
            [_attempt(each, started_s) for each in attempts],
            end,
        )
    )


def decode(story: bytes) -> Story:
    """Unpack what `encode` packed."""
    packed = _decode(story)
    ranking = np.frombuffer(packed.ranking, "<i4")
    table = np.frombuffer(packed.scores, "<f4").reshape(len(PARTS) + 2, ranking.size)
    candidates = [
        ScoredCandidate(
            int(number),
            round(float(column[0]), 4),
            {name: round(float(part), 4) for name, part in zip(PARTS, column[1:-1], strict=True)},
            format_usd(round(float(column[-1]))),
        )
        for number, column in zip(ranking, table.T, strict=True)
    ]
    rejected = [
        RejectedEndpoint(int(number), Rejection(int(reason)).name.lower())
        for number, reason in zip(
            np.frombuffer(packed.rejected, "<i4"), np.frombuffer(packed.reasons, "i1"), strict=True
        )
    ]
    return Story(
        packed.requirements,
        packed.price_version,
        candidates,
        rejected,
        packed.attempts,
        packed.end,
    )


def _demands(wanted: Requirements) -> dict[str, Any]:
    """What was asked for beyond the defaults."""
    demands: dict[str, Any] = {}
    for name in _TOLD:
        value = getattr(wanted, name)
        if value is not None and value != _DEFAULTS.get(name):
            demands[name] = sorted(value) if isinstance(value, frozenset) else value
    weights = wanted.weights
    demands["weights"] = {
        "quality": weights.quality,
        "domain_fit": weights.domain_fit,
        "cost": weights.cost,
        "latency": weights.latency,
        "availability": weights.availability,
    }
    return demands


_TOLD = tuple(
    each for each in Requirements.__dataclass_fields__ if each not in ("account_id", "weights")
)
_DEFAULTS = {name: field.default for name, field in Requirements.__dataclass_fields__.items()}


def _attempt(attempt: Attempt, started_s: float) -> dict[str, Any]:
    outcome = attempt.outcome
    assert outcome is not None, "a story is told when all attempts have ended"
    ended_s = attempt.ended_s or attempt.started_s
    first_s = attempt.first_content_s
    return {
        "endpoint_number": attempt.candidate.number,
        "started_ms": round((attempt.started_s - started_s) * 1_000, 3),
        "duration_ms": round((ended_s - attempt.started_s) * 1_000, 3),
        "ttft_ms": None if first_s is None else round((first_s - attempt.started_s) * 1_000, 3),
        "outcome": "delivered" if outcome.fault is None else outcome.fault.value,
        "status": outcome.status,
        "detail": outcome.detail,
        "tokens_in": attempt.tokens_in,
        "tokens_out": attempt.tokens_out,
        "charge_usd": format_usd(attempt.charge_nanos),
        "notes": attempt.notes,
    }
