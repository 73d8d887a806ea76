"""An answer is kept unless the next one is worth more than it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from broker.core.cascade import (
    SAMPLE,
    USUAL,
    Cascade,
    Curve,
    Kept,
    Stage,
    above,
    agreed,
    confidence_of,
    following_when,
    sureness,
    worth_it,
)
from broker.core.quality.fitting import fit_ridge_logistic


def test_confidence_is_the_geometric_mean_of_token_probabilities() -> None:
    assert confidence_of([math.log(0.5), math.log(0.02)]) == pytest.approx(0.1)
    assert confidence_of([0.0, 1e-9]) == 1.0
    assert confidence_of([]) is None
    assert confidence_of([float("-inf"), float("nan")]) is None


def test_a_curve_rises_and_stays_within_chances() -> None:
    told = [USUAL.chance(each) for each in (0.0, 0.5, 0.9, 0.99, 1.0, 2.0)]
    assert told == sorted(told)
    assert 0.0 < told[0] < 0.3 < told[2] < told[-1] < 1.0
    assert np.isfinite(sureness(np.array([0.0, 1.0]))).all()


def test_a_threshold_keeps_what_reaches_it_and_nothing_unknown() -> None:
    assert above(0.8, 0.8) == Kept(True, "confidence 0.80 is at least 0.80")
    assert above(0.79, 0.8) == Kept(False, "confidence 0.79 is below 0.80")
    unknown = above(None, 0.0)
    assert not unknown.kept
    assert "not known" in unknown.reason


def test_doubt_alone_does_not_escalate() -> None:
    assert worth_it(0.3, 0.35, 0.1).kept, "the next is hardly better and dear"
    assert not worth_it(0.3, 0.9, 0.1).kept
    assert worth_it(0.9, 0.95, 0.0).kept is False
    assert worth_it(None, 0.5, 0.0).kept


def test_no_curve_however_steep_leaves_the_chances() -> None:
    for odds in (-1e6, 1e6):
        assert 0.0 <= Curve(odds, 0.0).chance(0.5) <= 1.0


def test_agreement_adds_to_the_odds_as_far_as_is_learned_and_nothing_is_ever_certain() -> None:
    assert agreed(None, 1.0) == agreed(0.5, 1.0) > 0.5 > agreed(None, 0.0)
    assert agreed(0.8, 0.5) == pytest.approx(0.8), "half of it says nothing"
    odds = math.log(0.8 / 0.2) + 0.7 + 2.0 * 1.5 * 0.2
    learned = agreed(0.8, 0.6, Curve(0.7, 2.0))
    assert learned == pytest.approx(1.0 / (1.0 + math.exp(-odds)))
    for chance in (0.0, 1.0):
        assert 0.0 < agreed(chance, 0.0) < agreed(chance, 1.0) < 1.0


@pytest.mark.parametrize(
    ("cascade", "falls_back", "keeps_any"),
    [
        (Cascade(), False, False),
        (Cascade((Stage("one", 0.0), Stage("two", 0.0))), True, True),
        (Cascade((Stage("one", 0.9), Stage("two", 0.0))), False, False),
        (Cascade((Stage("one", 0.0), Stage("two", 0.9))), False, False),
        (Cascade((Stage("one", 0.0),), keep_from=0.5), True, False),
        (Cascade((Stage("one", 0.0),), agreement=SAMPLE), True, False),
    ],
)
def test_stages_that_keep_whatever_they_are_told_are_there_for_failures_alone(
    cascade: Cascade, falls_back: bool, keeps_any: bool
) -> None:
    assert (cascade.falls_back, cascade.keeps_any) == (falls_back, keeps_any)


def test_what_is_hard_for_one_is_harder_for_the_next() -> None:
    assert following_when(None, 0.6, 0.8) == 0.8
    assert following_when(0.6, 0.6, 0.8) == 0.8
    doubted, sure = following_when(0.1, 0.6, 0.8), following_when(0.95, 0.6, 0.8)
    assert 0.6 < doubted < 0.8 < sure < 0.95
    # A correlation of a quarter, in standard deviations of either.
    assert doubted == pytest.approx(0.8 - 0.25 * math.sqrt(0.8 * 0.2 / (0.6 * 0.4)) * 0.5)
    assert 0.0 <= following_when(0.0, 1.0, 0.02) <= following_when(1.0, 0.0, 0.98) <= 1.0
    # The next is still asked where the first is surely bad, and money is no matter.
    assert not worth_it(0.1, doubted, 0.3).kept


def test_models_that_fail_together_are_foretold_better_than_apart() -> None:
    random = np.random.default_rng(5)
    hard = random.normal(size=20_000)
    good = [hard + random.normal(scale=1.4, size=20_000) < each for each in (0.6, 1.2)]
    expected = [float(each.mean()) for each in good]
    # How sure the first is tells half of whether it is right.
    chance = np.where(good[0], *(0.5 + 0.5 * expected[0], 0.5 * expected[0]))
    joint = np.array([following_when(each, *expected) for each in chance.tolist()])
    assert ((joint - good[1]) ** 2).mean() < ((expected[1] - good[1]) ** 2).mean() - 1e-3


def test_platts_curve_is_found_again() -> None:
    random = np.random.default_rng(3)
    told = random.uniform(0.2, 0.999, 4_000)
    curve = Curve(-2.0, 1.5)
    right = (random.random(4_000) < [curve.chance(each) for each in told]).astype(float)
    design = np.column_stack((np.ones(4_000), sureness(told)))
    start, slope = fit_ridge_logistic(design, right)
    assert (start, slope) == (pytest.approx(-2.0, abs=0.2), pytest.approx(1.5, abs=0.15))
