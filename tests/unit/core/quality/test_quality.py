"""What models did shows what they will do: by domain, and by what is alike within one."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest

from broker.core.quality.clusters import group
from broker.core.quality.domains import learn
from broker.core.quality.from_tables import Evidence, Learned, learn_quality
from broker.core.quality.groups import make_groups

LENGTH = 12
STRANGERS = np.random.default_rng(0).normal(0.0, 3.0, (40, LENGTH))


def evidence(seed: int, of_each: int = 200) -> Evidence:
    """Two domains, one model good at each; in the first a third model is good at half of it."""
    random = np.random.default_rng(seed)
    labels = np.repeat((0, 1), of_each)
    vectors = random.normal(0.0, 0.3, (labels.size, LENGTH))
    vectors[:, 0] += 4.0 * labels
    odd = random.random(labels.size) < 0.5
    vectors[:, 1] += 4.0 * odd
    chance = np.column_stack(
        (
            np.where(labels == 0, 0.65, 0.3),
            np.where(labels == 1, 0.8, 0.3),
            np.where((labels == 0) & odd, 0.98, 0.2),
        )
    )
    scores = (random.random(chance.shape) < chance).astype(float)
    return Evidence(vectors, labels, scores)


def learned(seen: Evidence) -> Learned:
    recogniser = learn(("one", "other"), seen.labels, seen.vectors, STRANGERS, 1)
    return learn_quality(make_groups(recogniser, seen.vectors, seen.labels), seen)


def test_each_domain_goes_to_who_is_good_at_it() -> None:
    known, fresh = learned(evidence(1)), evidence(2)
    chosen = replace(known, local_share=0.0).estimate(fresh.vectors)[:, :2].argmax(axis=1)
    assert (chosen == fresh.labels).mean() > 0.95


def test_groups_find_what_is_good_at_a_part_of_a_domain() -> None:
    known, fresh = learned(evidence(1)), evidence(2)
    rows = np.arange(len(fresh.labels))

    def got(share: float) -> float:
        estimate = replace(known, local_share=share).estimate(fresh.vectors)
        return float(fresh.scores[rows, estimate.argmax(axis=1)].mean())

    assert got(1.0) > got(0.0) + 0.03


def test_estimates_lie_near_what_comes() -> None:
    known, fresh = learned(evidence(3)), evidence(4)
    estimate = known.estimate(fresh.vectors)
    assert np.abs(estimate.mean(axis=0) - fresh.scores.mean(axis=0)).max() < 0.05
    assert estimate.min() >= 0.0
    assert estimate.max() <= 1.0


def test_where_domains_tell_nothing_groups_tell_how_far_models_differ() -> None:
    def undivided(seed: int) -> Evidence:
        made = evidence(seed, of_each=100)
        return replace(made, labels=np.zeros_like(made.labels))

    seen, fresh = undivided(7), undivided(8)
    recogniser = learn(("all",), seen.labels, seen.vectors, STRANGERS, LENGTH)
    groups = make_groups(recogniser, seen.vectors, seen.labels)
    estimate = learn_quality(groups, seen).estimate(fresh.vectors)
    apart = estimate - estimate.mean(axis=0)
    slope = float((apart * fresh.scores).sum() / (apart**2).sum())
    assert 0.7 < slope < 1.4, "what is expected is about as much apart as what comes"


def test_a_model_that_was_asked_little_is_expected_to_find_hard_what_others_do() -> None:
    random = np.random.default_rng(9)
    labels, hard = np.repeat((0, 1), 300), random.random(600) < 0.5
    vectors = random.normal(0.0, 0.3, (600, LENGTH))
    vectors[:, 0] += 4.0 * labels
    vectors[:, 1] += 4.0 * hard
    chance = np.where(hard, 0.3, 0.9)[:, None]
    scores = (random.random((600, 4)) < chance).astype(float)
    scores[random.random(600) > 0.1, 3] = np.nan
    estimate = learned(Evidence(vectors, labels, scores)).estimate(vectors)
    for at_hard in (True, False):
        of_each = estimate[hard == at_hard].mean(axis=0)
        assert abs(of_each[3] - of_each[:3].mean()) < 0.15, "by what it was asked of these alone"


def test_how_hard_prompts_are_makes_no_model_stand_out() -> None:
    random = np.random.default_rng(10)
    labels = np.zeros(400, dtype=np.int64)
    vectors = random.normal(0.0, 1.0, (400, LENGTH))
    chance = 1.0 / (1.0 + np.exp(-2.0 * vectors[:, 1:2]))
    scores = (random.random((400, 1)) < chance).astype(float).repeat(5, axis=1)
    slips = random.random(scores.shape) < 0.2
    seen = Evidence(vectors, labels, np.where(slips, 1.0 - scores, scores))
    estimate = learned(seen).estimate(vectors)
    told, apart = estimate.mean(axis=1), estimate - estimate.mean(axis=1, keepdims=True)
    assert told.std() > 0.1, "groups tell what is hard"
    assert (apart - apart.mean(axis=0)).std() < 0.2 * told.std(), "and all slip alike"


def test_in_which_order_a_table_has_its_rows_tells_nothing() -> None:
    """Brokers take a model whose answers get worse and worse for one that has changed."""
    seen = evidence(11)
    by_score = np.argsort(-seen.scores[:, 0], kind="stable")
    rows = (each[by_score] for each in (seen.vectors, seen.labels, seen.scores))
    ordered, mean = learned(Evidence(*rows)).by_domain, learned(seen).by_domain
    assert np.abs(ordered - mean).max() < 0.03


def test_where_answers_have_degrees_those_that_are_quite_right_are_of_the_same_kind() -> None:
    seen = evidence(12)
    often = np.random.default_rng(12).random(seen.scores.shape) < (0.9, 0.1, 0.5)
    known = learned(replace(seen, scores=np.where(often, 1.0, 0.4))).by_domain
    assert known == pytest.approx(np.array([(0.94, 0.46, 0.7)] * 2), abs=0.06)


def test_a_model_that_was_hardly_asked_is_taken_for_what_is_usual() -> None:
    seen = evidence(5)
    scores = seen.scores.copy()
    scores[1:, 0] = np.nan
    scores[0, 0] = 1.0
    known = learned(replace(seen, scores=scores))
    assert (known.by_domain[:, 0] < 0.99).all()
    assert np.isfinite(known.estimate(seen.vectors)).all()


def test_groups_hold_what_is_near_each_other() -> None:
    random = np.random.default_rng(6)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = np.repeat(centres, 30, axis=0) + random.normal(0.0, 0.5, (90, 2))
    found, own = group(vectors, 3, Random(2))
    assert sorted(np.bincount(own).tolist()) == [30, 30, 30]
    assert np.abs(np.sort(found, axis=0) - np.sort(centres, axis=0)).max() < 0.5
    few, _ = group(np.ones((5, 2)), 3, Random(2))
    assert len(few) == 1


def test_a_few_answers_make_a_domain_easy_or_hard_whoever_gave_them() -> None:
    made = evidence(9, of_each=12)
    easy = np.repeat(made.labels[:, None] == 0, 3, axis=1)
    usual = learned(replace(made, scores=easy.astype(float))).by_domain
    assert usual[0].min() > 0.87, "not drawn towards a half"
    assert usual[1].max() < 0.13
