"""Other weights are evaluated by the stories of calls that explored."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from broker.core import story
from broker.core.candidates.view import RoutingLimits
from broker.core.quality.lessons import Lessons
from broker.core.requirements import Prompt, Weights
from broker.core.routing import route
from broker.errors import RequestMalformed
from broker.flows.quality.evaluate_policy import CALLS_MIN, UNIFORM, evaluate_calls
from broker.store.quality.judged_calls import JudgedCall
from pricing.book import Rate
from tests.fakes import endpoint, market, pulse, requirements

TRUE = {0: 0.9, 1: 0.5}
PROMPT = Prompt((0,), (1.0,))
LESSONS = Lessons(
    places={},
    table=np.array([[0.75, 0.7]]),
    doubt=np.zeros((1, 2)),
    weight=np.array([[8.0, 8.0]]),
    tokens_out=np.full((1, 2), 100.0),
)


def calls(count: int) -> list[JudgedCall]:
    """Calls that explored among a good endpoint and a cheap one, and how good the answers were."""
    cheap = endpoint(1, "acme/cheap", rate=Rate(100_000, 100_000, 0))
    where = replace(market([endpoint(0, "acme/good"), cheap]), lessons=LESSONS)
    random, live = Random(1), pulse(where)
    wanted = requirements(model="auto", prompt=PROMPT, explore=True, weights=Weights(1, 0, 0, 0, 0))
    made = []
    for _ in range(count):
        decision = route(wanted, where, live, RoutingLimits(), (random, 0.0))
        assert decision is not None
        number = decision.plan[0].number
        told = story.encode(wanted, decision, [], "delivered", 0.0)
        made.append(JudgedCall(told, number, float(random.random() < TRUE[number])))
    return made


def test_what_each_policy_would_have_got_lies_near_the_truth() -> None:
    judged = calls(600)
    for policy, truth in (("quality", 0.9), ("cheap", 0.5), (UNIFORM, 0.7)):
        told = evaluate_calls(judged, policy)
        assert told.supported == 1.0
        assert told.snips.value == pytest.approx(truth, abs=0.08)
        assert told.dr.low <= truth <= told.dr.high


def test_calls_that_another_answered_than_who_was_drawn_do_not_count() -> None:
    failed_over = [replace(each, endpoint_number=1 - each.endpoint_number) for each in calls(30)]
    with pytest.raises(RequestMalformed, match="0 calls that explored"):
        evaluate_calls(failed_over, "quality")
    assert evaluate_calls(failed_over + calls(CALLS_MIN), "quality").calls == CALLS_MIN


def test_a_story_of_some_of_very_many_tells_all_who_might_have_been_taken_and_how_many_more() -> (
    None
):
    size, quality = 400, np.linspace(0.75, 0.6, 400)
    lessons = Lessons(
        {}, quality[None, :], *(np.full((1, size), each) for each in (0.0, 8.0, 99.0))
    )
    many = [endpoint(number, f"acme/e{number}") for number in range(size)]
    where, random = replace(market(many), lessons=lessons), Random(1)
    live = pulse(where)
    wanted = requirements(model="auto", prompt=PROMPT, explore=True, weights=Weights(1, 0, 0, 0, 0))
    judged = []
    for _ in range(40):
        decision = route(wanted, where, live, RoutingLimits(), (random, 0.0))
        assert decision is not None
        packed = story.encode(wanted, decision, [], "delivered", 0.0)
        told = story.decode(packed)
        assert told.left_out == size - len(told.candidates) > 0
        assert sum(each.propensity or 0.0 for each in told.candidates) == pytest.approx(1.0)
        judged.append(JudgedCall(packed, decision.plan[0].number, 1.0))
    anybody = evaluate_calls(judged, UNIFORM)
    assert anybody.partly_told == 1.0
    assert 0.0 < anybody.supported < 0.1, "of four hundred few had a chance"
    assert anybody.most > 0.9 > anybody.least
