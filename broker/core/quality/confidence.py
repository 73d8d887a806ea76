"""Learns how likely an answer is to be good from how sure its model was, and what it adds when
another answer agrees.

Platt's curve of `broker.core.cascade`, fitted in three steps, each drawn to the one before as by
so many answers: of all endpoints with scores of one grade to the usual one, of an endpoint to that
of all, of an endpoint in a domain to the endpoint's (a Gaussian prior on the curve, its mode found
by Newton's method in short steps). So where evidence is thin the curve of what is alike holds.
Checks of form are not counted: an answer that fails them is not judged by its confidence.

Agreement has curves of the same kind, over what it usually adds to the odds that the model's being
sure gives an answer; where nothing tells how sure it was, over even odds. They are fitted apart for
agreement with the same model and with another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from broker.core.cascade import AS_USUAL, USUAL, Curve, concord, sureness
from broker.core.columns import Bools, Floats, Numbers
from broker.core.quality.fading import capped

PRECISION: Final = 4.0
"""Of each prior: twenty answers, of which half are good, tell as much of where a curve starts."""
ANSWERS_MIN: Final = 5.0
"""Of fewer, by weight, no curve is fitted."""
ENDPOINT_MAX: Final = 50.0
"""So much weigh at most the answers of one endpoint in what is usual, by weight."""
_STEPS: Final = 50
_HALVINGS: Final = 40
_ODDS_MAX: Final = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Answers of which is known how sure their model was and how good they were; of one length."""

    endpoints: Numbers
    domains: Numbers
    """Places of domains; what is of none has a place of its own, or is below 0."""
    graded: Bools
    confidences: Floats
    scores: Floats
    weights: Floats
    said: Bools
    """By accounts; the rest was examined."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What was learned: of a domain at an endpoint, else of the endpoint, else of all."""

    usual: Curve
    """By the grade of which more is known."""
    of_endpoint: Mapping[int, Curve]
    of_domain: Mapping[tuple[int, int], Curve]

    def of(self, number: int, place: int) -> Curve:
        """Return the curve of an endpoint, by its number, in a domain, by its place."""
        found = self.of_domain.get((number, place)) or self.of_endpoint.get(number)
        return found or self.usual


def fit_curves(told: Told) -> Curves:
    """Fit all curves. Of an endpoint with scores of both grades one grade counts: that which weighs
    more in what was examined, where that is enough, else in all; see `_of_one_grade`."""
    values = sureness(told.confidences)
    return _fit(told, values, np.zeros(values.size), USUAL)


def fit_agreements(told: Told, agreements: Floats, curves: Curves) -> Curves:
    """Fit what agreement with another answer adds to what `curves` say of how sure models were;
    `agreements` are within 0..1, NaN where nothing was compared."""
    own = np.zeros(agreements.size)
    for at in np.flatnonzero(np.isfinite(agreements) & np.isfinite(told.confidences)).tolist():
        curve = curves.of(int(told.endpoints[at]), int(told.domains[at]))
        own[at] = curve.start + curve.slope * sureness(told.confidences[at])
    return _fit(replace(told, confidences=agreements), concord(agreements), own, AS_USUAL)


def _fit(told: Told, values: Floats, odds: Floats, first_guess: Curve) -> Curves:
    """Fit curves over `values`, which add to the `odds` that answers have without."""
    use = np.flatnonzero(_of_one_grade(told) & np.isfinite(told.confidences) & (told.weights > 0.0))
    endpoints, domains, graded = told.endpoints[use], told.domains[use], told.graded[use]
    answers = _Answers(values[use], told.scores[use], told.weights[use], odds[use])
    bounded = replace(answers, weights=capped(answers.weights, endpoints, ENDPOINT_MAX))
    usual, _ = _fitted(graded.astype(np.int64), bounded, np.tile(_parts(first_guess), (2, 1)))
    numbers, first, own = np.unique(endpoints, return_index=True, return_inverse=True)
    of_endpoint, known = _fitted(own, answers, usual[graded[first].astype(np.int64)])

    placed = np.flatnonzero(domains >= 0)
    rows = int(domains.max(initial=0)) + 1
    cells, first, inside = np.unique(
        (own * rows + domains)[placed], return_index=True, return_inverse=True
    )
    of_domain, known_there = _fitted(inside, answers.at(placed), of_endpoint[own[placed][first]])
    return Curves(
        Curve(*usual[int(bounded.weights @ graded > bounded.weights @ ~graded)].tolist()),
        {int(numbers[at]): Curve(*of_endpoint[at].tolist()) for at in np.flatnonzero(known)},
        {
            (int(numbers[cells[at] // rows]), int(cells[at] % rows)): Curve(*of_domain[at].tolist())
            for at in np.flatnonzero(known_there)
        },
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    values: Floats
    scores: Floats
    weights: Floats
    own: Floats
    """Their odds without the curve, as logarithms."""

    def at(self, places: Numbers) -> _Answers:
        return _Answers(
            self.values[places], self.scores[places], self.weights[places], self.own[places]
        )


def _of_one_grade(told: Told) -> Bools:
    """Return which answers count: graded and right-or-wrong scores are never fitted together.

    What was examined tells the grade, for who says much shall not choose what is listened to.
    """
    if not told.endpoints.size:
        return np.zeros(0, dtype=bool)
    numbers = np.maximum(told.endpoints, 0)
    heard = told.weights * np.isfinite(told.confidences) * (told.endpoints >= 0)
    examined = heard * ~told.said
    enough = np.bincount(numbers, examined) >= ANSWERS_MIN
    more_graded = [
        np.bincount(numbers, each * told.graded) > np.bincount(numbers, each * ~told.graded)
        for each in (examined, heard)
    ]
    graded = np.where(enough, *more_graded)
    return np.asarray((told.endpoints >= 0) & (told.graded == graded[numbers]))


def _fitted(cells: Numbers, answers: _Answers, priors: Floats) -> tuple[Floats, Bools]:
    """Return a curve for each cell as (start, slope), and which have answers enough to be fitted;
    the others keep their prior. All are fitted side by side."""

    def sums(amounts: Floats) -> Floats:
        return np.bincount(cells, answers.weights * amounts, len(priors)).astype(np.float64)

    values, found = answers.values, priors.copy()
    for _ in range(_STEPS):
        chances = _chances(answers.own + found[cells, 0] + found[cells, 1] * values)
        short, spread = answers.scores - chances, chances * (1.0 - chances)
        slope = np.column_stack((sums(short), sums(short * values))) - PRECISION * (found - priors)
        one, both, two = (sums(spread * values**power) for power in (0, 1, 2))
        one, two = one + PRECISION, two + PRECISION
        step = np.column_stack(
            (two * slope[:, 0] - both * slope[:, 1], one * slope[:, 1] - both * slope[:, 0])
        )
        step /= (one * two - both**2)[:, None]
        # Whole steps overshoot where the prior is far off; of a concave sum short ones arrive.
        longest = np.abs(step).max(axis=1, initial=0.0)
        found += step / np.maximum(longest, 1.0)[:, None]
        if longest.max(initial=0.0) < 1e-8:
            break
    totals = sums(np.ones(values.size))
    # Who is surer is not the worse for it: that is chance, and such confidence says nothing.
    found = np.where(found[:, 1:] < 0.0, _flat(cells, answers, priors), found)
    known = totals >= ANSWERS_MIN
    return np.where(known[:, None], found, priors), known


def _flat(cells: Numbers, answers: _Answers, priors: Floats) -> Floats:
    """Return curves without a slope that foretell as many good answers as there were, and the prior
    for PRECISION more at the middle of their values and odds."""
    counts = np.maximum(np.bincount(cells, minlength=len(priors)), 1)
    values, own = (
        np.bincount(cells, each, len(priors)) / counts for each in (answers.values, answers.own)
    )
    good = PRECISION * _chances(own + priors[:, 0] + priors[:, 1] * values)
    good = good + np.bincount(cells, answers.weights * answers.scores, len(priors))
    low, high = np.full(len(priors), -_ODDS_MAX), np.full(len(priors), _ODDS_MAX)
    for _ in range(_HALVINGS):
        start = (low + high) / 2.0
        foretold = answers.weights * _chances(answers.own + start[cells])
        more = PRECISION * _chances(own + start) + np.bincount(cells, foretold, len(priors)) > good
        low, high = np.where(more, low, start), np.where(more, start, high)
    return np.column_stack(((low + high) / 2.0, np.zeros(len(priors))))


def _chances(odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -_ODDS_MAX, _ODDS_MAX))))


def _parts(curve: Curve) -> tuple[float, float]:
    return curve.start, curve.slope
