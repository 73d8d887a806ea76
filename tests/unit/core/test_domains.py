"""Domains are learned from a few examples and told with honest odds; strangers are none of them."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.columns import Floats, Numbers
from broker.core.domains import Recogniser, learn
from broker.core.fitting import (
    calibration_error,
    calibration_error_by_chance,
    fit_logistic,
    fit_temperature,
    softmax,
)
from broker.core.groups import GROUPED_MAX, make_groups

LENGTH = 40
NAMES = ("law", "medicine", "code", "poetry")
STRANGERS = np.random.default_rng(11).normal(0.0, 1.3, (60, LENGTH))


def prompts(
    random: np.random.Generator, of_each: int, domains: int, apart: float = 0.55
) -> tuple[Floats, Numbers]:
    """Vectors of domains whose clouds overlap, the less the more they are apart."""
    centres = np.random.default_rng(7).normal(0.0, apart, (domains, LENGTH))
    labels = np.repeat(np.arange(domains), of_each)
    return centres[labels] + random.normal(0.0, 1.0, (labels.size, LENGTH)), labels


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    vectors, labels = prompts(np.random.default_rng(1), 30, len(NAMES))
    return learn(NAMES, labels, vectors, STRANGERS)


def test_thirty_examples_teach_a_domain(recogniser: Recogniser) -> None:
    vectors, labels = prompts(np.random.default_rng(2), 100, len(NAMES))
    told = recogniser.among_known(recogniser.standardise(vectors))
    assert (told.argmax(axis=1) == labels).mean() > 0.85


def test_the_odds_are_as_good_as_they_say(recogniser: Recogniser) -> None:
    vectors, labels = prompts(np.random.default_rng(3), 500, len(NAMES))
    told = recogniser.among_known(recogniser.standardise(vectors))
    right = (told.argmax(axis=1) == labels).astype(float)
    assert calibration_error(told.max(axis=1), right) < 0.08


@pytest.mark.parametrize("count", [250, 4_000])
def test_odds_that_are_right_seem_as_far_off_as_chance_makes_them(count: int) -> None:
    random = np.random.default_rng(6)
    seeming, expected = [], []
    for _ in range(200):
        chances = random.uniform(0.2, 0.95, count)
        outcomes = (random.random(count) < chances).astype(float)
        seeming.append(calibration_error(chances, outcomes))
        expected.append(calibration_error_by_chance(chances, outcomes))
    assert np.mean(seeming) == pytest.approx(np.mean(expected), rel=0.06)
    assert np.mean(seeming) > 0.05 if count < 300 else np.mean(seeming) < 0.03
    wrong = calibration_error(np.clip(chances + 0.1, 0.0, 1.0), outcomes)
    assert wrong > 2.0 * expected[-1] or count < 300


def test_a_prompt_of_no_known_domain_is_none_of_them() -> None:
    vectors, labels = prompts(np.random.default_rng(1), 30, len(NAMES), apart=1.2)
    recogniser = learn(NAMES, labels, vectors, STRANGERS)
    strange = np.random.default_rng(4).normal(0.0, 1.3, (50, LENGTH))
    told = recogniser.probabilities(strange)
    assert (told.argmax(axis=1) == len(NAMES)).mean() > 0.8
    assert recogniser.recognise(np.zeros(LENGTH)).domain is None


def test_what_is_recognised_has_a_name_and_all_odds_sum_to_one(recogniser: Recogniser) -> None:
    vectors, labels = prompts(np.random.default_rng(5), 20, len(NAMES))
    told = recogniser.probabilities(vectors)
    assert told.shape == (80, len(NAMES) + 1)
    np.testing.assert_allclose(told.sum(axis=1), 1.0)
    found = [recogniser.recognise(each) for each in vectors]
    named = [each.domain == NAMES[at] for each, at in zip(found, labels, strict=True)]
    assert np.mean(named) > 0.7
    assert all(0.0 < each.confidence <= 1.0 for each in found)


@pytest.mark.parametrize("domains", [1, 2])
def test_even_one_domain_is_told_from_what_is_strange(domains: int) -> None:
    vectors, labels = prompts(np.random.default_rng(6), 25, domains, apart=1.2)
    only = learn(NAMES[:domains], labels, vectors, STRANGERS)
    own = only.probabilities(vectors)
    assert (own.argmax(axis=1) == labels).mean() > 0.8
    odd = only.probabilities(np.random.default_rng(5).normal(0.0, 1.3, (50, LENGTH)))
    assert (odd.argmax(axis=1) == domains).mean() > 0.8


def test_learning_the_same_gives_the_same() -> None:
    vectors, labels = prompts(np.random.default_rng(8), 20, 3)
    first, second = (learn(NAMES[:3], labels, vectors, STRANGERS) for _ in range(2))
    np.testing.assert_array_equal(first.probabilities(vectors), second.probabilities(vectors))


def test_a_logistic_curve_is_found_again() -> None:
    random = np.random.default_rng(9)
    values = random.normal(3.0, 2.0, 5_000)
    outcomes = (random.random(5_000) < 1.0 / (1.0 + np.exp(-(1.0 - 0.5 * values)))).astype(float)
    start, slope = fit_logistic(values, outcomes, np.ones(5_000))
    assert start == pytest.approx(1.0, abs=0.2)
    assert slope == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("too_sure", [0.2, 1.0, 3.0, 9.0, 90.0])
def test_the_temperature_is_that_under_which_labels_are_likeliest(too_sure: float) -> None:
    random = np.random.default_rng(8)
    scores = random.normal(0.0, 2.0, (400, 5))
    labels = (softmax(scores).cumsum(axis=1) < random.random((400, 1))).sum(axis=1)
    found, least = fit_temperature(scores * too_sure, labels)

    def loss(temperature: float) -> float:
        chances = softmax(scores * too_sure / temperature)[np.arange(400), labels]
        return float(-np.log(chances).mean())

    assert least == pytest.approx(loss(found))
    assert least <= min(map(loss, np.geomspace(1.0, 64.0, 37))) + 1e-6


def test_a_few_that_are_surely_wrong_are_not_passed_over_by_the_temperature() -> None:
    """They are so sure that at half of all temperatures their own chance is none."""
    labels = np.arange(200) % 2
    scores = np.where(np.eye(2)[labels] > 0, 320.0, 0.0)
    scores[:4] = 500.0 - scores[:4] / 320.0 * 500.0
    found, least = fit_temperature(scores, labels)
    assert found == pytest.approx(64.0)
    assert least < 0.3


def test_of_very_many_examples_some_of_each_domain_are_grouped() -> None:
    looks = np.random.default_rng(9).normal(0.0, 1.0, (2 * GROUPED_MAX + 1, 3))
    found, some = make_groups(looks), make_groups(looks[::3])
    np.testing.assert_array_equal(found.centres, some.centres)
