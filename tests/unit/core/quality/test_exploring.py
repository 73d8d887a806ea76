"""Calls that may explore go to who may be better than it seems, by chances that are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from broker.core import story
from broker.core.candidates.view import RoutingLimits
from broker.core.quality.exploring import FLOOR, good_enough, propensities, spread_of
from broker.core.quality.lessons import Lessons
from broker.core.requirements import Prompt, Weights
from broker.core.routing import route
from pricing.book import Rate
from tests.fakes import decide, endpoint, market, planned, pulse, requirements

QUALITY = (0.8, 0.75, 0.7, 0.3)
KNOWN = (200.0, 200.0, 2.0, 200.0)
PROMPT = Prompt((0,), (1.0,))
LESSONS = Lessons(
    places={},
    table=np.array([QUALITY]),
    doubt=np.zeros((1, 4)),
    weight=np.array([KNOWN]),
    tokens_out=np.full((1, 4), 100.0),
)
WHERE = replace(market([endpoint(at, f"acme/{at}") for at in range(4)]), lessons=LESSONS)
ASKED = {"model": "auto", "prompt": PROMPT, "weights": Weights(1, 0, 0, 0, 0)}


def test_who_is_little_known_is_tried_and_who_is_known_to_be_worse_never() -> None:
    wanted, live, random = requirements(**ASKED, explore=True), pulse(WHERE), Random(1)
    counts: Counter[int] = Counter()
    told = np.zeros(4)
    for _ in range(400):
        decision = route(wanted, WHERE, live, RoutingLimits(), (random, 0.0))
        assert decision is not None
        assert decision.rows[-1].sum() == pytest.approx(1.0)
        counts[decision.plan[0].number] += 1
        told += decision.rows[-1]
    assert counts[3] == 0
    assert counts[2] > 40, "it is hardly known, and so may be the best"
    assert np.array([counts[at] for at in range(4)]) / 400 == pytest.approx(told / 400, abs=0.08)


def test_how_little_is_known_of_quality_counts_as_much_as_quality_does() -> None:
    """Under a worth all of it, whatever the weights are."""
    listed = [endpoint(at, f"acme/{at}", rate=Rate(10**4 + at, 10**4, 0)) for at in range(4)]
    where = replace(market(listed), lessons=LESSONS)
    asked = ASKED | {"explore": True, "weights": Weights(0, 0, 1, 0, 0)}
    assert decide(where, **asked).rows[-1][2] <= FLOOR
    assert decide(where, **asked, value_nanos=10**9).rows[-1][2] > 2 * FLOOR
    halved = asked | {"weights": Weights(0.5, 0, 0.5, 0, 0)}
    whole = asked | {"weights": Weights(1, 0, 0, 0, 0)}
    chances = [decide(where, **each).rows[-1][2] for each in (halved, whole)]
    assert chances == pytest.approx([chances[1]] * 2, abs=0.02), "either half as much, or all"


def test_who_does_not_ask_for_it_gets_the_best() -> None:
    decision = decide(WHERE, **ASKED)
    assert planned(decision)[0] == 0
    assert decision.rows[-1].tolist() == [1.0, 0.0, 0.0, 0.0]
    wished = decide(WHERE, **ASKED, explore=True, providers_order=("acme",))
    assert not wished.rows[-1].any()


def test_a_conversation_stays_where_its_context_is_whoever_else_may_be_better() -> None:
    for seed in range(50):
        decision = decide(WHERE, seed=seed, **ASKED, explore=True, home=1)
        assert planned(decision)[0] == 1
        assert not decision.rows[-1].any()


def test_of_many_alike_the_chances_of_those_drawn_from_are_told() -> None:
    alike = market([endpoint(at, f"acme/{at}") for at in range(40)])
    told = decide(alike).rows[-1]
    assert told == pytest.approx(np.full(40, 1 / 40))


def test_nobody_below_the_quality_that_is_asked_for_is_tried() -> None:
    for seed in range(50):
        decision = decide(WHERE, seed=seed, **ASKED, explore=True, quality_min=0.45)
        assert planned(decision)[0] != 3
    quality = np.array([0.8, 0.7, 0.6])
    assert good_enough(quality, None).tolist() == [True, True, False]
    assert good_enough(quality, 0.75).tolist() == [True, False, False]


def test_where_nothing_was_learned_what_is_declared_has_to_be_good_enough() -> None:
    declared = market([endpoint(0, quality=0.2), endpoint(1, quality=0.9)])
    unread = {"prompt": Prompt((), ()), "model": "auto"}
    for where, asked in ((declared, ASKED), (replace(declared, lessons=LESSONS), unread)):
        assert planned(decide(where, **asked, quality_min=0.5)) == [1]


def test_who_is_shown_to_be_good_enough_is_so_whatever_it_declares() -> None:
    humble = market([endpoint(0, "acme/0", quality=0.2), endpoint(1, "acme/1", quality=0.9)])
    where = replace(humble, lessons=replace(LESSONS, table=np.array([[0.8, 0.3]])))
    decision = decide(where, **ASKED, quality_min=0.5)
    assert planned(decision) == [0]
    alone = replace(WHERE, lessons=replace(LESSONS, table=np.array([[0.3, 0.3, 0.3, 0.3]])))
    asked = ASKED | {"model": "acme/0"}
    assert planned(decide(alone, **asked, quality_min=0.5)) == []


def test_a_draw_among_those_near_the_best_has_its_chances_kept_as_well() -> None:
    for equals in (2, 20):
        where = market(
            [endpoint(at, f"acme/{at}", deployment={"capacity": at + 1}) for at in range(equals)]
        )
        figures = decide(where).rows
        sizes = np.arange(1.0, equals + 1.0)
        assert figures[-1].tolist() == pytest.approx((sizes / sizes.sum()).tolist())


def test_every_chance_is_at_least_its_share_of_the_floor() -> None:
    scores, able = np.array([0.9, 0.5, 0.1]), np.array([True, True, False])
    chances = propensities(scores, np.full(3, 0.01), able, Random(2))
    assert chances.tolist() == pytest.approx([1 - FLOOR / 2, FLOOR / 2, 0.0])
    many = propensities(np.zeros(100), np.ones(100), np.ones(100, dtype=bool), Random(3))
    assert many.sum() == pytest.approx(1.0)
    assert np.count_nonzero(many) <= 16
    assert spread_of(np.array([0.5]), np.array([23.0]))[0] == pytest.approx(0.1)


def test_the_story_tells_the_chances() -> None:
    decision = decide(WHERE, **ASKED, explore=True)
    packed = story.encode(requirements(**ASKED, explore=True), decision, [], "delivered", 0.0)
    candidates = story.decode(packed).candidates
    assert sum(each.propensity or 0.0 for each in candidates) == pytest.approx(1.0)
    plain = story.encode(requirements(), decide(WHERE, **ASKED), [], "delivered", 0.0)
    assert [each.propensity for each in story.decode(plain).candidates] == [1.0, 0.0, 0.0, 0.0]
