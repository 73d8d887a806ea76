"""What a model's confidence is worth is learned by model and domain, and from what is alike."""

from __future__ import annotations

from dataclasses import fields, replace
from time import process_time

import numpy as np
import pytest

from broker.core.cascade import AS_USUAL, USUAL, Curve, agreed, sureness
from broker.core.columns import Floats
from broker.core.quality.confidence import PRECISION, Curves, Told, fit_agreements, fit_curves
from broker.core.quality.fitting import calibration_error

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
    return Told(cells[:, 0], cells[:, 1], kinds, sure, scores, np.ones(len(cells)), kinds & False)


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
        np.zeros(exact.scores.size + graded.scores.size, dtype=bool),
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
        told.said,
    )
    assert fit_curves(light).of(0, 0) == USUAL
    unknown = np.full(told.scores.size, np.nan)
    nobody = replace(told, confidences=unknown)
    assert fit_curves(nobody).of(0, 0) == USUAL


def test_who_is_surer_is_never_the_worse_for_it() -> None:
    sure = np.tile([0.2, 0.95], 50)
    scores = np.tile([1.0, 0.0], 50)
    zeros = np.zeros(100, dtype=np.int64)
    curve = fit_curves(Told(zeros, zeros, zeros == 1, sure, scores, np.ones(100), zeros == 1)).of(
        0, 0
    )
    assert curve.slope == 0.0
    assert curve.chance(0.5) == pytest.approx(0.5, abs=0.1)


def some(number: int, count: int, score: float, *, graded: bool, said: bool = False) -> Told:
    sure = np.linspace(0.4, 0.99, count)
    numbers, kinds = np.full(count, number), np.full(count, graded)
    scores, whose = np.full(count, score), np.full(count, said)
    return Told(numbers, numbers * 0, kinds, sure, scores, np.ones(count), whose)


def together(*parts: Told) -> Told:
    return Told(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Told)))


def test_what_is_usual_is_of_one_grade() -> None:
    exact, graded = some(0, 40, 1.0, graded=False), some(1, 39, 0.4, graded=True)
    both = fit_curves(together(exact, graded))
    assert both.usual == fit_curves(exact).usual
    assert both.of(1, -1).chance(0.8) < 0.5 < both.of(0, -1).chance(0.8)


def test_what_accounts_say_more_of_does_not_choose_the_grade_over_what_was_examined() -> None:
    suite, words = some(0, 40, 0.0, graded=False), some(0, 300, 0.9, graded=True, said=True)
    assert fit_curves(together(suite, words)).of(0, 0) == fit_curves(suite).of(0, 0)
    few = together(some(0, 4, 0.0, graded=False), words)
    assert fit_curves(few).of(0, 0).chance(0.9) > 0.7, "so few examined tell no grade"


def test_one_endpoint_with_many_answers_does_not_say_what_is_usual() -> None:
    others = [some(number, 40, 0.2, graded=False) for number in range(5)]
    flooded = fit_curves(together(*others, some(9, 5_000, 1.0, graded=False)))
    assert flooded.usual.chance(0.9) < 0.5 < flooded.of(9, 0).chance(0.9)


def test_the_mode_is_found_of_every_curve_side_by_side() -> None:
    told = answers(5, 60)
    curves = fit_curves(told)
    for (number, place), curve in curves.of_domain.items():
        mine = (told.endpoints == number) & (told.domains == place)
        prior, values = curves.of_endpoint[number], sureness(told.confidences[mine])
        short = told.scores[mine] - 1.0 / (1.0 + np.exp(-curve.start - curve.slope * values))
        assert short.sum() == pytest.approx(PRECISION * (curve.start - prior.start), abs=1e-5)
        assert short @ values == pytest.approx(PRECISION * (curve.slope - prior.slope), abs=1e-5)
    assert len(curves.of_domain) == 4


def test_many_endpoints_cost_little_more_than_few() -> None:
    random, size = np.random.default_rng(1), 20_000

    def cpu_s(count: int) -> float:
        sure, no = random.uniform(0.4, 1.0, size), np.zeros(size, dtype=bool)
        right = (random.random(size) < 0.7).astype(float)
        told = Told(
            *(random.integers(0, count, size), np.full(size, -1)),
            *(no, sure, right, np.ones(size), no),
        )
        begun = process_time()
        fit_curves(told)
        return process_time() - begun

    assert min(cpu_s(3_000) for _ in range(3)) < 5 * min(cpu_s(20) for _ in range(3))


AGREEMENT = {(0, 0): Curve(-1.2, 0.2), (1, 0): Curve(0.3, 1.8)}
"""By endpoint and domain: the one errs alike twice, of the other agreement tells much."""


def compared(seed: int, each: int) -> tuple[Told, Floats]:
    """Return answers of which nothing but agreement is known."""
    random = np.random.default_rng(seed)
    numbers = np.repeat((0, 1), each)
    alike = random.beta(0.7, 0.7, numbers.size)
    chances = [
        agreed(None, float(a), AGREEMENT[int(at), 0]) for at, a in zip(numbers, alike, strict=True)
    ]
    right = (random.random(numbers.size) < chances).astype(float)
    no, nothing = np.zeros(numbers.size, dtype=bool), np.full(numbers.size, np.nan)
    told = Told(numbers, numbers * 0, no, nothing, right, np.ones(numbers.size), no)
    return told, alike


def agreement_ece(curves: Curves, told: Told, alike: Floats) -> float:
    rows = zip(told.endpoints, told.domains, alike, strict=True)
    chances = np.array([agreed(None, float(p), curves.of(int(a), int(b))) for a, b, p in rows])
    return calibration_error(chances, told.scores)


def test_what_agreement_is_worth_is_learned_by_model_and_domain() -> None:
    nothing = Curves(USUAL, {}, {})
    learned, fresh = fit_agreements(*compared(1, 300), nothing), compared(2, 2_000)
    assert agreement_ece(learned, *fresh) < 0.03
    assert agreement_ece(Curves(AS_USUAL, {}, {}), *fresh) > 0.1


def test_before_anything_was_compared_agreement_is_worth_what_is_usual() -> None:
    told, alike = compared(1, 100)
    unknown = fit_agreements(told, np.full(alike.size, np.nan), Curves(USUAL, {}, {}))
    assert unknown.of(0, 0) == AS_USUAL
    few, some = compared(1, 2)
    assert fit_agreements(few, some, Curves(USUAL, {}, {})).of(0, 0) == AS_USUAL
    assert agreed(None, 0.5) == pytest.approx(0.5)
    assert agreed(None, 0.0) == pytest.approx(1.0 - agreed(None, 1.0))


def test_agreement_adds_nothing_to_what_sureness_has_told_already() -> None:
    random = np.random.default_rng(3)
    told = answers(3, 2_000)
    alike = np.where(random.random(told.scores.size) < told.confidences**4, 1.0, 0.0)
    curves = fit_curves(told)
    beside = fit_agreements(told, alike, curves)
    for cell in TRUE:
        assert beside.of(*cell).slope == pytest.approx(0.0, abs=0.15)
    alone = fit_agreements(replace(told, confidences=alike * np.nan), alike, curves)
    assert alone.of(0, 0).slope > 0.2, "by itself it tells something"


def test_an_endpoint_whose_answers_agree_when_they_are_wrong_is_not_the_better_for_it() -> None:
    zeros, alike = np.zeros(100, dtype=np.int64), np.tile([0.1, 0.95], 50)
    sure, scores = np.full(100, 0.9), np.tile([1.0, 0.0], 50)
    told = Told(zeros, zeros, zeros == 1, sure, scores, np.ones(100), zeros == 1)
    curves = fit_curves(told)
    curve = fit_agreements(told, alike, curves).of(0, 0)
    own = curves.of(0, 0).chance(0.9)
    assert curve.slope == 0.0
    assert agreed(own, 0.95, curve) == pytest.approx(0.5, abs=0.08)
