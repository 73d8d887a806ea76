"""Domains are learned from a few examples and told with honest odds; strangers are none of them."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.columns import Floats, Numbers
from broker.core.quality.domains import FOLDS, HELD_OUT_MAX, Recogniser, among_held_out, learn, some
from broker.core.quality.fitting import (
    calibration_error,
    calibration_error_by_chance,
    fit_logistic,
    fit_temperature,
    folds,
    softmax,
)
from broker.core.quality.groups import GROUPINGS, make_groups, making

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
    assert recogniser.recognise(recogniser.look(np.zeros(LENGTH))).domain is None


def test_what_is_recognised_has_a_name_and_all_odds_sum_to_one(recogniser: Recogniser) -> None:
    vectors, labels = prompts(np.random.default_rng(5), 20, len(NAMES))
    told = recogniser.probabilities(vectors)
    assert told.shape == (80, len(NAMES) + 1)
    np.testing.assert_allclose(told.sum(axis=1), 1.0)
    found = [recogniser.recognise(recogniser.look(each)) for each in vectors]
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


@pytest.mark.parametrize("of_each", [20, 40, 41, 200])
def test_of_very_many_examples_as_many_of_each_domain_are_asked(of_each: int) -> None:
    labels = np.repeat(np.arange(205), of_each)
    rows = some(labels.size)
    assert rows.size == np.unique(rows).size == min(labels.size, HELD_OUT_MAX)
    counts = np.bincount(labels[rows])
    assert counts.max() - counts.min() <= 1


def test_who_is_asked_of_examples_has_not_seen_them() -> None:
    """Each is told as by who was fitted to the other folds alone, one after the other."""
    vectors, labels = prompts(np.random.default_rng(3), 12, 3)
    vectors, labels = vectors[::-1], labels[::-1]
    recogniser = learn(NAMES[:3], labels, vectors, STRANGERS)
    standard, rows = recogniser.standardise(vectors), np.arange(1, 36, 5)
    told = among_held_out(recogniser, standard, labels, rows)
    places, scores = folds(labels, FOLDS), []
    for row in rows:
        seen, of = standard[places != places[row]], labels[places != places[row]]
        means = np.array([seen[of == at].mean(axis=0) for at in range(3)])
        apart = seen - means[of]
        covariance = apart.T @ apart / len(apart)
        own = np.diag(np.diag(covariance))
        shrunk = covariance * (1.0 - recogniser.shrinkage) + own * recogniser.shrinkage
        shrunk += 0.05 * np.diag(covariance).mean() * np.eye(LENGTH)
        weights = means @ np.linalg.inv(shrunk)
        scores.append(weights @ standard[row] - 0.5 * (weights * means).sum(axis=1))
    np.testing.assert_allclose(told, softmax(np.array(scores) / recogniser.temperature))


def test_groups_are_made_step_by_step_and_are_the_same_each_time(recogniser: Recogniser) -> None:
    vectors, labels = prompts(np.random.default_rng(1), 30, len(NAMES))
    steps = list(making(recogniser, vectors, labels, "taught"))
    assert [each is None for each in steps] == [True] * (GROUPINGS - 1) + [False]
    groups, again = steps[-1], make_groups(recogniser, vectors, labels, "taught")
    assert groups is not None
    np.testing.assert_array_equal(groups.centres, again.centres)
    assert groups.of(vectors).shape == (120, GROUPINGS)
    assert groups.read(again.told([3, 1])) == [3, 1]


@pytest.mark.parametrize("meaning", [None, 25])
def test_one_prompt_is_seen_as_it_is_among_many(meaning: int | None) -> None:
    vectors, labels = prompts(np.random.default_rng(9), 40, len(NAMES))
    recogniser = learn(NAMES, labels, vectors, STRANGERS, meaning)
    groups = make_groups(recogniser, vectors, labels)
    asked = np.vstack((vectors[::7], STRANGERS[::3]))
    among, (near, odds) = recogniser.probabilities(asked), groups.of_with_odds(asked)
    told_names = set()
    for at, vector in enumerate(asked):
        look = recogniser.look(vector)
        told, best = recogniser.recognise(look), int(among[at].argmax())
        np.testing.assert_allclose(look.odds, odds[at], rtol=1e-9)
        assert told.domain == (*NAMES, None)[best]
        assert told.confidence == pytest.approx(among[at, best])
        assert groups.nearest_to(look) == near[at].tolist()
        told_names.add(told.domain)
    assert told_names == {*NAMES, None}
