"""Small fits that calibrate: folds, softmax, a temperature, a logistic curve of one variable."""

from __future__ import annotations

import numpy as np

from broker.core.columns import Floats, Numbers

_TEMPERATURES = np.geomspace(1.0, 64.0, 37)
"""None below 1: examples are more alike than what comes, and cannot show that odds are too low."""
_STEPS = 30
_TINY = 1e-12
_LEVEL = 1e-9
"""A loss that falls by less is level: of such temperatures the lowest is taken."""


def folds(labels: Numbers, count: int) -> Numbers:
    """Deal examples out over `count` folds, those of each label evenly; the same each time."""
    places = np.zeros(len(labels), dtype=np.int64)
    for label in set(labels.tolist()):
        members = np.flatnonzero(labels == label)
        places[members] = np.arange(members.size) % count
    return places


def softmax(scores: Floats) -> Floats:
    """Return probabilities by row."""
    risen = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(risen / risen.sum(axis=1, keepdims=True))


def fit_temperature(scores: Floats, labels: Numbers) -> tuple[float, float]:
    """Return the temperature under which the labels are likeliest, and the mean loss in nats.

    The loss is convex in 1 / T, so it falls up to the best of the temperatures and rises after it.
    """
    behind = scores - scores.max(axis=1, keepdims=True)
    own, risen = behind[np.arange(len(labels)), labels], np.empty_like(behind)

    def loss(place: int) -> float:
        # By logarithms: where a chance is too small to be told from none, the loss is level.
        np.exp(np.divide(behind, _TEMPERATURES[place], out=risen), out=risen)
        return float((np.log(risen.sum(axis=1)) - own / _TEMPERATURES[place]).mean())

    low, high = 0, _TEMPERATURES.size - 1
    while low < high:
        middle = (low + high) // 2
        if loss(middle + 1) < loss(middle) - _LEVEL:
            low = middle + 1
        else:
            high = middle
    return float(_TEMPERATURES[low]), loss(low)


def fit_logistic(values: Floats, outcomes: Floats, weights: Floats) -> tuple[float, float]:
    """Return (a, b) of p = 1 / (1 + exp(-(a + b x))), by Newton's method with a slight ridge."""
    centre, spread = float(values.mean()), max(float(values.std()), _TINY)
    design = np.column_stack((np.ones(len(values)), (values - centre) / spread))
    fitted = np.zeros(2)
    for _ in range(_STEPS):
        chances = 1.0 / (1.0 + np.exp(-np.clip(design @ fitted, -30.0, 30.0)))
        slope = design.T @ (weights * (outcomes - chances)) - 0.01 * fitted
        bend = (design.T * (weights * chances * (1.0 - chances))) @ design + 0.01 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        fitted += step
        if float(np.abs(step).max()) < 1e-8:
            break
    start, rise = fitted.tolist()
    return start - rise * centre / spread, rise / spread


def fit_ridge_logistic(design: Floats, outcomes: Floats) -> Floats:
    """Return weights of p = 1 / (1 + exp(-design @ w)), outcomes within 0..1, by Newton's method.

    The ridge is 1. The first column is of ones, and its weight free of it.
    """
    weights = np.zeros(design.shape[1])
    penalty = np.eye(design.shape[1])
    penalty[0, 0] = 1e-3
    for _ in range(_STEPS):
        chances = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30.0, 30.0)))
        slope = design.T @ (outcomes - chances) - penalty @ weights
        bend = (design.T * (chances * (1.0 - chances))) @ design + penalty
        step = np.linalg.solve(bend, slope)
        weights += step
        if float(np.abs(step).max()) < 1e-8:
            break
    return weights


def calibration_error(chances: Floats, outcomes: Floats, bins: int = 15) -> float:
    """Return the expected calibration error over bins of equal width (Naeini et al., 2015)."""
    count, apart, _ = _binned(chances, outcomes, bins)
    return float(np.abs(apart).sum() / max(int(count.sum()), 1))


def calibration_error_by_chance(chances: Floats, outcomes: Floats, bins: int = 15) -> float:
    """Return about what that error would be on as many outcomes if the chances were right.

    Of a bin with deviations d the sum is then normal about 0, and |N(0, s)| is s * sqrt(2 / pi) on
    average, with s^2 the sum of d^2: the fewer outcomes, the more (Roelofs et al., "Mitigating Bias
    in Calibration Error Estimation", 2022, measure the same bias).
    """
    count, _, spread = _binned(chances, outcomes, bins)
    return float(np.sqrt(2.0 / np.pi * spread).sum() / max(int(count.sum()), 1))


def _binned(chances: Floats, outcomes: Floats, bins: int) -> tuple[Numbers, Floats, Floats]:
    """Return of each bin how many outcomes it has, and the sums of deviations and their squares."""
    places = np.minimum((chances * bins).astype(np.int64), bins - 1)
    apart = chances - outcomes
    sums, squares = (
        np.asarray(np.bincount(places, each, bins), dtype=np.float64) for each in (apart, apart**2)
    )
    return np.bincount(places, minlength=bins).astype(np.int64), sums, squares
