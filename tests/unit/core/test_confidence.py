"""What a model's confidence is worth is learned by model and domain, and from what is alike."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.cascade import USUAL, Curve
from broker.core.columns import Floats
from broker.core.confidence import Curves, Told, fit_curves
from broker.core.fitting import calibration_error

TRUE = {
    (0, 0): Curve(-3.0, 1.2),
    (0, 1): Curve(-0.5, 1.6),
    (1, 0): Curve(0.5, 0.4),
    (1, 1): Curve(-2.0, 2.0),
}
"""By endpoint and domain: each is as sure of itself as the other, and not as often right."""


def answers(seed: int, each: int, *, graded: bool = False) -> Told:
    random = np.random.default_rng(seed)
    cells = np.repeat(np.array(sorted(TRUE)), each, axis=0)
    sure = random.beta(6.0, 1.5, len(cells))
    chances = np.array(
        [TRUE[a, b].chance(p) for (a, b), p in zip(cells.tolist(), sure.tolist(), strict=True)]
    )
    right = (random.random(len(cells)) < chances).astype(float)
    scores = chances if graded else right
    kinds = np.full(len(cells), graded)
    return Told(cells[:, 0], cells[:, 1], kinds, sure, scores, np.ones(len(cells)))


def ece(curves: Curves, told: Told) -> float:
    rows = zip(told.endpoints, told.domains, told.confidences, strict=True)
    chances: Floats = np.array([curves.of(int(a), int(b)).chance(float(p)) for a, b, p in rows])
    return calibration_error(chances, told.scores)


def test_what_was_learned_is_calibrated_and_the_usual_curve_is_not() -> None:
    learned, fresh = fit_curves(answers(1, 400)), answers(2, 2_000)
    assert ece(learned, fresh) < 0.03 < ece(Curves(USUAL, {}, {}), fresh)
    for cell, true in TRUE.items():
        found = learned.of(*cell)
        assert found.chance(0.6) == pytest.approx(true.chance(0.6), abs=0.1)
        assert found.chance(0.95) == pytest.approx(true.chance(0.95), abs=0.1)


def test_graded_scores_tell_as_much() -> None:
    assert ece(fit_curves(answers(1, 150, graded=True)), answers(2, 2_000)) < 0.03


def test_where_evidence_is_thin_the_curve_of_what_is_alike_holds() -> None:
    nothing = fit_curves(answers(1, 0))
    assert nothing.of(0, 0) == USUAL
    some = answers(1, 1)
    assert fit_curves(some).of(0, 0) == USUAL, "four answers tell nothing yet"
    learned = fit_curves(answers(3, 8))
    by_endpoint = learned.of(0, 7).chance(0.8)
    assert by_endpoint != USUAL.chance(0.8), "of another domain the endpoint's holds"
    low, high = sorted((USUAL.chance(0.8), TRUE[0, 0].chance(0.8)))
    assert low < learned.of(0, 0).chance(0.8) < high
    assert learned.of(9, 0) == learned.usual


def test_grades_are_never_fitted_together() -> None:
    exact, graded = answers(1, 50), answers(4, 30, graded=True)
    wrong = np.zeros(graded.scores.size)
    both = Told(
        *(
            np.concatenate((getattr(exact, name), getattr(graded, name)))
            for name in ("endpoints", "domains", "graded", "confidences")
        ),
        np.concatenate((exact.scores, wrong)),
        np.concatenate((exact.weights, graded.weights)),
    )
    alone, mixed = fit_curves(exact), fit_curves(both)
    assert mixed.of(0, 0) == alone.of(0, 0), "there is more of the other kind"


def test_what_weighs_little_tells_little_and_confidence_that_is_not_known_nothing() -> None:
    told = answers(1, 100)
    light = Told(
        told.endpoints,
        told.domains,
        told.graded,
        told.confidences,
        1.0 - told.scores,
        np.full(told.scores.size, 0.001),
    )
    assert fit_curves(light).of(0, 0) == USUAL
    unknown = np.full(told.scores.size, np.nan)
    nobody = Told(told.endpoints, told.domains, told.graded, unknown, told.scores, told.weights)
    assert fit_curves(nobody).of(0, 0) == USUAL


def test_who_is_surer_is_never_the_worse_for_it() -> None:
    sure = np.tile([0.2, 0.95], 50)
    scores = np.tile([1.0, 0.0], 50)
    zeros = np.zeros(100, dtype=np.int64)
    curve = fit_curves(Told(zeros, zeros, zeros == 1, sure, scores, np.ones(100))).of(0, 0)
    assert curve.slope == 0.0
    assert curve.chance(0.5) == pytest.approx(0.5, abs=0.1)
