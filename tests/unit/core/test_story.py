"""A call's story is packed small, and read again with everything in it."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from broker.core import story
from broker.core.decision import Decision
from broker.core.dispatch import Attempt, Dispatch
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.requirements import Prompt, Weights
from broker.core.retries import RetryBudget
from broker.core.story import CANDIDATES_KEPT_MAX, Story
from pricing.money import format_usd
from tests.fakes import decide, endpoint, market, planned, requirements

DEMANDS = {
    "domain": "law",
    "regions": frozenset({"uk", "eu"}),
    "quality_min": 0.4,
    "weights": Weights(1, 2, 3, 4, 5),
}


def told(decision: Decision, attempts: list[Attempt] | None = None) -> Story:
    return story.decode(
        story.encode(requirements(**DEMANDS), decision, attempts or [], "delivered", 10.0)
    )


def two_attempts(decision: Decision) -> list[Attempt]:
    calls = Dispatch(
        decision.plan, RetryBudget(0.0), deadline_s=99.0, attempts_max=4, random=Random(1)
    )
    calls.next_attempt(10.0)
    calls.record(Outcome(Fault.OVERLOADED, status=429, detail="slow down"), 10.25)
    last = calls.next_attempt(10.25)
    assert last is not None
    last.first_content_s = 10.5
    last.tokens_in, last.tokens_out, last.charge_nanos = 90, 40, 105_000
    last.notes.append("tokens_out_suspicious")
    calls.record(DELIVERED, 11.25)
    return calls.attempts


def test_nothing_that_was_made_of_a_prompt_is_kept() -> None:
    decision = decide(market([endpoint(0)]))
    known = requirements(prompt=Prompt((0, 3), (0.5, 0.5)))
    packed = story.encode(known, decision, [], "delivered", 10.0)
    assert packed == story.encode(requirements(), decision, [], "delivered", 10.0)


def test_demands_are_told_as_far_as_they_were_made() -> None:
    demands = told(decide(market([endpoint(0)]), **DEMANDS)).requirements
    assert demands == {
        "task": "chat",
        "model": "small",
        "tokens_in_bound": 464,
        "tokens_in_expected": 100,
        "tokens_out_max": 100,
        "domain": "law",
        "regions": ["eu", "uk"],
        "quality_min": 0.4,
        "weights": {
            "quality": 1.0,
            "domain_fit": 2.0,
            "cost": 3.0,
            "latency": 4.0,
            "availability": 5.0,
        },
    }


def test_candidates_are_told_in_rank_order_with_score_parts_and_cost() -> None:
    where = market([endpoint(number, quality=0.5 + number / 20) for number in range(6)])
    decision = decide(where, **DEMANDS)
    candidates = told(decision).candidates
    assert [each.endpoint_number for each in candidates[:4]] == planned(decision)
    rest = [each.score for each in candidates[4:]]
    assert rest == sorted(rest, reverse=True)
    for each in candidates:
        place = decision.eligible.tolist().index(each.endpoint_number)
        assert each.score == pytest.approx(decision.scores[place], abs=1e-4)
        assert list(each.parts.values()) == pytest.approx(decision.parts[:, place], abs=1e-4)
        assert each.expected_cost_usd == format_usd(200_000)


def test_the_rejected_are_told_with_their_reasons() -> None:
    unfit = [endpoint(1, quality=0.1), endpoint(2, deployment={"region": "us"})]
    rejected = told(decide(market([endpoint(0), *unfit]), **DEMANDS)).rejected
    assert {each.endpoint_number: each.reason for each in rejected} == {
        1: "quality_too_low",
        2: "region",
    }


def test_attempts_are_told_with_timings_since_the_call_began() -> None:
    decision = decide(market([endpoint(0), endpoint(1)]))
    attempts = told(decision, two_attempts(decision)).attempts
    assert attempts == [
        {
            "endpoint_number": planned(decision)[0],
            "started_ms": 0.0,
            "duration_ms": 250.0,
            "ttft_ms": None,
            "outcome": "overloaded",
            "status": 429,
            "detail": "slow down",
            "tokens_in": 0,
            "tokens_out": 0,
            "charge_usd": "0.00",
            "notes": [],
            "judged": None,
        },
        {
            "endpoint_number": planned(decision)[1],
            "started_ms": 250.0,
            "duration_ms": 1_000.0,
            "ttft_ms": 250.0,
            "outcome": "delivered",
            "status": None,
            "detail": "",
            "tokens_in": 90,
            "tokens_out": 40,
            "charge_usd": "0.000105",
            "notes": ["tokens_out_suspicious"],
            "judged": None,
        },
    ]


def test_a_refused_call_has_a_story_without_candidates() -> None:
    refused = told(decide(market([endpoint(0, quality=0.1)]), **DEMANDS))
    assert refused.candidates == []
    assert [each.reason for each in refused.rejected] == ["quality_too_low"]
    assert refused.attempts == []
    assert refused.end == "delivered"


def test_a_hundred_candidates_take_less_than_five_kilobytes() -> None:
    where = market([endpoint(number) for number in range(100)])
    decision = decide(where)
    packed = story.encode(requirements(), decision, two_attempts(decision), "delivered", 10.0)
    assert len(story.decode(packed).candidates) == 100
    assert len(packed) < 5_000


def test_of_a_very_large_market_the_best_are_told_and_all_that_were_planned() -> None:
    providers = {3: "first", 5: "first"}
    members = [
        endpoint(number, f"{providers.get(number, 'acme')}/e-{number}", quality=number / 2_000)
        for number in range(CANDIDATES_KEPT_MAX + 500)
    ]
    decision = decide(market(members), providers_order=("first",))
    candidates = told(decision).candidates
    assert len(candidates) == CANDIDATES_KEPT_MAX
    assert told(decision).left_out == 500
    assert [each.endpoint_number for each in candidates[:4]] == planned(decision)
    assert planned(decision)[:2] == [5, 3]
    # Two of the planned are among the best by score, two are there by the caller's order alone.
    worst = np.sort(decision.scores)[-(CANDIDATES_KEPT_MAX - 2)]
    assert candidates[-1].score == pytest.approx(worst, abs=1e-4)


@pytest.mark.parametrize("kinds", [1, 7, 10_000])
def test_nobody_is_told_in_place_of_a_better_or_of_one_that_was_planned_or_drawn(
    kinds: int,
) -> None:
    lots = np.random.default_rng(5)
    size = CANDIDATES_KEPT_MAX + 700
    eligible = np.arange(0, 3 * size, 3)
    figures = np.zeros((8, size))
    figures[0] = lots.integers(0, kinds, size) / kinds
    worst = figures[0].argsort(kind="stable")[:5]
    figures[-1, worst[:3]] = 1 / 3
    planned = eligible[worst[3:]].tolist()
    kept = story._best(eligible, figures, planned)
    assert len({*kept.tolist()}) == CANDIDATES_KEPT_MAX
    assert {*worst.tolist()} <= {*kept.tolist()}
    others = np.setdiff1d(kept, worst)
    left_out = np.setdiff1d(np.arange(size), kept)
    assert figures[0, others].min() >= figures[0, left_out].max()


def test_a_decision_in_a_very_large_market_is_thin_while_its_call_is_under_way() -> None:
    decision = decide(market([endpoint(number) for number in range(3_000)]))
    thin = story.thin(decision)
    kept = told(thin).candidates
    assert [each.endpoint_number for each in kept] == [
        each.endpoint_number for each in told(decision).candidates
    ]
    assert thin.plan == decision.plan
    arrays = (thin.eligible, np.asarray(thin.figures), thin.rejected, thin.reasons)
    assert sum(each.nbytes for each in arrays) < 50_000
    assert all(each.base is None for each in arrays), "else all would be kept with the part"
    assert story.thin(thin) is thin
