"""Tells what another preset would have got of calls that explored and whose answers were judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

import numpy as np
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.candidates.scoring import CLAIM_BONUS, PARTS
from broker.core.columns import Floats
from broker.core.quality.off_policy import Evaluated, Logged, evaluate
from broker.core.requirements import TASTES, Taste
from broker.core.story import ScoredCandidate, decode
from broker.errors import RequestMalformed
from broker.store.quality.judged_calls import JudgedCall, judged_calls

UNIFORM = "uniform"
"""The policy that chooses anybody alike."""
POLICIES = (*TASTES, UNIFORM)
CALLS_MIN = 20


async def evaluate_policy(engine: AsyncEngine, policy: str, since: datetime) -> Evaluated:
    """Evaluate one of POLICIES. Raises RequestMalformed for another, or where too few calls
    explored and were judged."""
    if policy not in POLICIES:
        known = ", ".join(POLICIES)
        raise RequestMalformed(f"There is no policy '{policy}', only {known}.")
    async with engine.connect() as connection:
        judged = await judged_calls(connection, since)
    return await asyncio.to_thread(evaluate_calls, judged, policy)


def evaluate_calls(judged: Sequence[JudgedCall], policy: str) -> Evaluated:
    """Evaluate a policy on calls. Raises RequestMalformed where too few of them explored."""
    explored = [
        (each, story.candidates, story.left_out)
        for each in judged
        for story in [decode(each.story)]
        if _explored(each, story.candidates)
    ]
    if len(explored) < CALLS_MIN:
        raise RequestMalformed(
            f"Of {len(explored)} calls that explored something was said; it takes {CALLS_MIN}. "
            "Calls explore where their consumer says so (broker.explore)."
        )
    numbers = sorted({each.endpoint_number for _, told, _ in explored for each in told})
    places = {number: at for at, number in enumerate(numbers)}
    chances, other = np.zeros((2, len(explored), len(numbers)))
    for row, (_, told, left_out) in enumerate(explored):
        at = [places[each.endpoint_number] for each in told]
        chances[row, at] = [each.propensity or 0.0 for each in told]
        other[row, at] = _chances(told, policy, left_out)
    rewards = np.array([each.score for each, _, _ in explored])
    taken = np.array([places[each.endpoint_number] for each, _, _ in explored], dtype=np.int64)
    partly = float(np.mean([left_out > 0 for _, _, left_out in explored]))
    return evaluate(Logged(rewards, taken, chances, other, partly))


def _explored(call: JudgedCall, candidates: Sequence[ScoredCandidate]) -> bool:
    """True where who answered is who was drawn, and others could have been: of another nobody knows
    the chance."""
    return bool(
        sum(bool(each.propensity) for each in candidates) > 1
        and candidates[0].propensity
        and candidates[0].endpoint_number == call.endpoint_number
    )


def _chances(candidates: Sequence[ScoredCandidate], policy: str, left_out: int) -> Floats:
    """Return by which chance the policy would choose each: all of it goes to its best of those that
    are told. Whoever was left out of a story had no chance to be taken."""
    if policy == UNIFORM:
        return np.full(len(candidates), 1.0 / (len(candidates) + left_out))
    parts = np.array([[each.parts[name] for name in PARTS] for each in candidates])
    costs = np.array([float(each.expected_cost_usd) for each in candidates])
    chances = np.zeros(len(candidates))
    chances[_worth(parts.T, costs, TASTES[policy]).argmax()] = 1.0
    return chances


def _worth(parts: Floats, costs: Floats, taste: Taste) -> Floats:
    """Return scores as `broker.core.candidates.scoring` makes them, as near as a story tells: how
    late anybody was is told beside the soonest alone."""
    quality, fit, _, soonness, available = parts
    typical = float(np.median(costs))
    scores = quality * available + CLAIM_BONUS * fit
    if typical > 0.0:
        scores -= costs / (taste.worth * typical)
    if taste.hurried:
        scores -= taste.lateness * (1.0 / np.maximum(soonness, 1e-6) - 1.0)
    return np.asarray(scores)
