"""What a story tells each endpoint of why it did not get the call."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import story
from broker.core.candidates.eligibility import Rejection
from broker.core.decision import Decision
from broker.core.dispatch import Attempt
from broker.core.lost import Fate, Kind, fates
from broker.core.market import Presence
from broker.core.outcome import DELIVERED, Fault, Outcome
from broker.core.requirements import Weights
from broker.core.story import ScoredCandidate, Story
from pricing.book import Rate
from tests.fakes import decide, endpoint, market, requirements

CHEAP = Rate(rate_in_micros=100_000, rate_out_micros=300_000, rate_call_nanos=0)


def told(decision: Decision, *outcomes: Outcome, **demands: Any) -> list[Fate]:
    """The fates of a call whose attempts ended so, each at the next candidate of the plan."""
    attempts = []
    for place, outcome in enumerate(outcomes):
        attempt = Attempt(place, decision.plan[place], 0.0, started_s=1.0)
        attempt.outcome, attempt.ended_s = outcome, 2.0
        attempts.append(attempt)
    packed = story.encode(requirements(**demands), decision, attempts, "delivered", 1.0)
    return list(fates(story.decode(packed)))


def test_the_dearer_endpoint_lost_by_its_price_and_the_cheaper_one_served() -> None:
    two = market([endpoint(0, "acme/small"), endpoint(1, "zeta/small", rate=CHEAP)])
    weights = Weights(cost=4.0)
    found = told(decide(two, weights=weights), DELIVERED, weights=weights)
    assert found == [Fate(1, Kind.SERVED), Fate(0, Kind.OUTRANKED, "price", "cost", 2)]


def test_a_part_that_the_caller_did_not_weigh_is_no_reason() -> None:
    two = market(
        [endpoint(0, "acme/small", quality=0.9), endpoint(1, "zeta/small", rate=CHEAP, quality=0.1)]
    )
    weights = Weights(quality=1.0, domain_fit=0.0, cost=0.0, latency=0.0, availability=0.0)
    found = told(decide(two, weights=weights), DELIVERED, weights=weights)
    assert found[1] == Fate(1, Kind.OUTRANKED, "quality", "quality", 2)


def test_a_hard_filter_is_told_by_its_reason() -> None:
    three = market(
        [endpoint(0), endpoint(1, "b/small", rate=CHEAP), endpoint(2, "c/small", rate=CHEAP)],
        {2: Presence.DOWN},
    )
    found = told(decide(three, max_rate_in_micros=200_000), DELIVERED)
    assert set(found) == {
        Fate(1, Kind.SERVED),
        Fate(0, Kind.REFUSED, "price", "rate_too_high"),
        Fate(2, Kind.REFUSED, "health", "not_present"),
    }


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.OVERLOADED, "capacity"),
        (Fault.FIRST_BYTE_TIMEOUT, "latency"),
        (Fault.RESET, "health"),
        (Fault.DEADLINE, "latency"),
    ],
)
def test_a_failed_attempt_is_lost_by_its_fault(fault: Fault, reason: str) -> None:
    two = market([endpoint(0, "acme/small"), endpoint(1, "zeta/small", rate=CHEAP)])
    decision = decide(two)
    first, second = (each.number for each in decision.plan)
    found = told(decision, Outcome(fault), DELIVERED)
    assert found == [Fate(first, Kind.FAILED, reason, fault.value), Fate(second, Kind.SERVED)]


@pytest.mark.parametrize("fault", [Fault.CALLER_FAULT, Fault.CALLER_LEFT])
def test_what_the_caller_spoiled_is_lost_to_nobody(fault: Fault) -> None:
    assert told(decide(market([endpoint(0)])), Outcome(fault)) == []


def test_a_call_that_nobody_got_was_outranked_by_nobody() -> None:
    two = market([endpoint(0), endpoint(1, "zeta/small")])
    assert told(decide(two)) == []


def test_who_is_as_good_as_the_best_lost_by_chance_or_by_the_callers_order() -> None:
    def twins(**requirements: Any) -> Story:
        each = dict.fromkeys(("quality", "domain_fit", "cost", "latency", "availability"), 0.5)
        candidates = [ScoredCandidate(number, 0.5, each, "0.01") for number in range(12)]
        tried = [{"endpoint_number": 0, "outcome": "delivered"}]
        return Story(requirements, 1, candidates, [], tried, "delivered")

    drawn = list(fates(twins()))
    assert drawn[1] == Fate(1, Kind.OUTRANKED, "chance", "draw", 2)
    assert [each.rank for each in drawn[-3:]] == [10, 10, 10]
    ordered = list(fates(twins(providers_order=["acme"])))
    assert ordered[1] == Fate(1, Kind.OUTRANKED, "policy", "caller_order", 2)


def test_every_rejection_and_fault_has_a_reason() -> None:
    for rejection in Rejection:
        named = Story({}, 1, [], [story.RejectedEndpoint(1, rejection.name.lower())], [], "")
        [fate] = fates(named)
        assert fate.reason in {
            "price",
            "latency",
            "quality",
            "health",
            "capacity",
            "policy",
            "limits",
        }
