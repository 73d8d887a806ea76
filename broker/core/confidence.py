"""Learns how likely an answer is to be good from how sure its model was of it.

Platt's curve of `broker.core.cascade`, fitted in three steps, each drawn to the one before as by
so many answers: of all endpoints to the usual one, of an endpoint to that of all, of an endpoint in
a domain to the endpoint's (a Gaussian prior on the curve, its mode found by Newton's method in
short steps). So where evidence is thin the curve of what is alike holds. Checks of form are not
counted: an answer that fails them is not judged by its confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from broker.core.cascade import USUAL, Curve, sureness
from broker.core.columns import Bools, Floats, Numbers

PRECISION: Final = 4.0
"""Of each prior: twenty answers, of which half are good, tell as much of where a curve starts."""
ANSWERS_MIN: Final = 5.0
"""Of fewer, by weight, no curve is fitted."""
_STEPS: Final = 50
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


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What was learned: of a domain at an endpoint, else of the endpoint, else of all."""

    usual: Curve
    of_endpoint: Mapping[int, Curve]
    of_domain: Mapping[tuple[int, int], Curve]

    def of(self, number: int, place: int) -> Curve:
        """Return the curve of an endpoint, by its number, in a domain, by its place."""
        found = self.of_domain.get((number, place)) or self.of_endpoint.get(number)
        return found or self.usual


def fit_curves(told: Told) -> Curves:
    """Fit all curves. Where an endpoint has scores of both grades, those that weigh more count."""
    use = _of_one_grade(told) & np.isfinite(told.confidences) & (told.weights > 0.0)
    values = sureness(np.where(use, told.confidences, 0.0))

    def fitted(which: Bools, prior: Curve) -> Curve | None:
        if float(told.weights[which].sum()) < ANSWERS_MIN:
            return None
        return _fit(values[which], told.scores[which], told.weights[which], prior)

    usual = fitted(use, USUAL) or USUAL
    of_endpoint, of_domain = {}, {}
    for number in np.unique(told.endpoints[use]).tolist():
        own = use & (told.endpoints == number)
        curve = fitted(own, usual)
        if curve is None:
            continue
        of_endpoint[number] = curve
        for place in np.unique(told.domains[own]).tolist():
            in_domain = fitted(own & (told.domains == place), curve) if place >= 0 else None
            if in_domain is not None:
                of_domain[number, place] = in_domain
    return Curves(usual, of_endpoint, of_domain)


def _of_one_grade(told: Told) -> Bools:
    """Return which answers count: graded and right-or-wrong scores are never fitted together."""
    if not told.endpoints.size:
        return np.zeros(0, dtype=bool)
    numbers = np.maximum(told.endpoints, 0)
    heard = told.weights * np.isfinite(told.confidences)
    graded = np.bincount(numbers, heard * told.graded)
    exact = np.bincount(numbers, heard * ~told.graded)
    return np.asarray((told.endpoints >= 0) & (told.graded == (graded > exact)[numbers]))


def _fit(values: Floats, scores: Floats, weights: Floats, prior: Curve) -> Curve:
    design = np.column_stack((np.ones(len(values)), values))
    centre = np.array([prior.start, prior.slope])
    found = centre.copy()
    for _ in range(_STEPS):
        odds = np.clip(design @ found, -_ODDS_MAX, _ODDS_MAX)
        chances = 1.0 / (1.0 + np.exp(-odds))
        slope = design.T @ (weights * (scores - chances)) - PRECISION * (found - centre)
        bend = (design.T * (weights * chances * (1.0 - chances))) @ design
        step = np.linalg.solve(bend + PRECISION * np.eye(2), slope)
        # Whole steps overshoot where the prior is far off; of a concave sum short ones arrive.
        found += step / max(float(np.abs(step).max()), 1.0)
        if float(np.abs(step).max()) < 1e-8:
            break
    if found[1] >= 0.0:
        return Curve(*found.tolist())
    # Who is surer is not the worse for it: that is chance, and such confidence says nothing.
    good = PRECISION * prior.chance(float(1.0 - np.exp(-values.mean()))) + weights @ scores
    share = float(good / (PRECISION + weights.sum()))
    return Curve(math.log(share / (1.0 - share)), 0.0)
