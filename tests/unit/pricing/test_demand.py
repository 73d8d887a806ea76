from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.demand import DemandState, ElasticityEstimator

anything = st.floats(allow_nan=True, allow_infinity=True)


def seen(
    estimator: ElasticityEstimator, elasticity: float, windows: int = 60, noise: float = 0.0
) -> DemandState:
    """Two endpoints, of which the second has twice the elasticity, and a level that drifts."""
    rng = np.random.default_rng(5)
    state = estimator.start(2)
    for window in range(windows):
        log_price = rng.choice([-0.1, 0.1], 2)
        level = 0.01 * window + noise * rng.normal(size=2)
        load = np.exp(level - elasticity * np.array([1.0, 2.0]) * log_price)
        for _ in range(3):
            state = estimator.watch(state, np.exp(log_price), load, 1.0)
        state = estimator.close(state)
    return state


def test_the_elasticity_of_each_endpoint_is_learned() -> None:
    known = ElasticityEstimator().estimate(seen(ElasticityEstimator(), 0.8))
    np.testing.assert_allclose(known.mean, [0.8, 1.6], atol=0.1)


def test_what_is_learned_is_within_its_error_under_noise() -> None:
    known = ElasticityEstimator().estimate(seen(ElasticityEstimator(), 1.2, noise=0.1))
    assert (np.abs(known.mean - [1.2, 2.4]) < 2.5 * known.error).all()
    assert (known.error > 0.02).all()


def test_before_any_window_the_prior_stands_and_is_unsure() -> None:
    estimator = ElasticityEstimator(prior=1.7)
    known = estimator.estimate(estimator.start(3))
    assert known.mean.tolist() == pytest.approx([1.7] * 3)
    assert (known.error > 1.0).all()


def test_more_windows_make_surer() -> None:
    estimator = ElasticityEstimator(forgetting=1.0)
    few = estimator.estimate(seen(estimator, 1.0, windows=5, noise=0.1))
    many = estimator.estimate(seen(estimator, 1.0, windows=200, noise=0.1))
    assert (many.error < 0.5 * few.error).all()


def test_what_was_long_ago_is_forgotten() -> None:
    estimator = ElasticityEstimator(forgetting=0.8, prior_weight=1e-6)
    state = seen(estimator, 0.5)
    for window in range(60):
        price = np.full(2, 0.1 if window % 2 else -0.1)
        state = estimator.close(estimator.watch(state, np.exp(price), np.exp(-3.0 * price), 1.0))
    np.testing.assert_allclose(estimator.estimate(state).mean, [3.0, 3.0], rtol=1e-3)


def test_a_price_that_never_moves_teaches_nothing() -> None:
    estimator = ElasticityEstimator()
    state = estimator.start(1)
    for load in (0.2, 0.9, 0.4):
        state = estimator.close(estimator.watch(state, np.ones(1), np.array([load]), 1.0))
    assert estimator.estimate(state).mean[0] == pytest.approx(1.0)


def test_of_whom_nobody_asks_nothing_is_learned_until_somebody_does() -> None:
    estimator = ElasticityEstimator()
    state = estimator.start(2)
    for window in range(40):
        price = np.full(2, 1.1 if window % 2 else 0.9)
        load = np.array([0.0, 0.2 if window % 2 else 0.0])
        state = estimator.close(estimator.watch(state, price, load, 1.0))
    known = estimator.estimate(state)
    assert (known.mean[0], state.weight[0]) == (1.0, 0.0)
    assert known.mean[1] < -2.0  # asked when it is dear: either step tells


def test_an_endpoint_that_joins_starts_from_nothing_and_disturbs_no_other() -> None:
    estimator = ElasticityEstimator()
    state = seen(estimator, 0.8)
    before = estimator.estimate(state).mean
    grown = estimator.close(estimator.watch(state, np.ones(3), np.ones(3), 1.0))
    assert estimator.estimate(grown).mean[2] == pytest.approx(1.0)
    assert grown.weight[2] == 0.0
    np.testing.assert_allclose(estimator.estimate(state).mean, before)


@given(st.lists(st.tuples(anything, anything, st.floats(0.0, 10.0)), max_size=12))
@settings(max_examples=50)
def test_whatever_is_seen_no_nan_escapes(script: list[tuple[float, float, float]]) -> None:
    estimator = ElasticityEstimator()
    state = estimator.start(1)
    for price, load, dt_s in script:
        state = estimator.watch(state, np.array([price]), np.array([load]), dt_s)
        state = estimator.close(state)
        known = estimator.estimate(state)
        assert np.isfinite(known.mean).all()
        assert np.isfinite(known.error).all()


def test_an_estimator_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="forgetting"):
        ElasticityEstimator(forgetting=0.0)
    with pytest.raises(ValueError, match="prior"):
        ElasticityEstimator(prior_weight=0.0)
