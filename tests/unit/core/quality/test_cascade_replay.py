"""Cascades begin cheaply and ask again where that pays, and are no worse where nothing tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from broker.core.columns import Floats
from broker.core.quality.cascade_replay import Asked, Cascader
from broker.core.quality.frontier import reached, replay_of

PRICES = [0.0, *np.geomspace(0.1, 1e5, 40)]


def asked(seed: int, knows: float, count: int = 2_000) -> Asked:
    """A cheap model that errs half the time and a dear one that errs less; `knows` is how far apart
    the cheap one's confidence lies when it is right and when it is not."""
    random = np.random.default_rng(seed)
    scores = (random.random((count, 2)) < (0.5, 0.9)).astype(float)
    sure = np.clip(0.7 + knows * (scores - 0.5) + random.normal(0, 0.08, (count, 2)), 0.01, 0.99)
    costs = np.tile((0.001, 0.01), (count, 1))
    expected = np.tile((0.5, 0.9), (count, 1))
    domains = np.zeros(count, dtype=np.int64)
    return Asked(expected, costs, scores, sure, costs, np.full((count, 2), 100.0), domains)


@pytest.mark.parametrize(("knows", "least", "most"), [(0.5, 0.1, 0.4), (0.0, -0.02, 0.02)])
def test_what_is_gained_is_what_confidence_knows(knows: float, least: float, most: float) -> None:
    played = asked(2, knows)
    replay = Cascader(asked(1, knows)).play(played, PRICES, (1, 0))
    everyone = np.arange(len(played.scores))
    alone = replay_of(
        np.array([everyone * 0, everyone * 0 + 1]), played.scores, played.paid_usd, 1, 0
    )
    halfway = np.array([0.006])
    gain = reached(*replay.points(everyone), halfway) - reached(*alone.points(everyone), halfway)
    assert least < float(gain[0]) < most


def test_an_answer_that_was_dropped_is_paid_too() -> None:
    replay = Cascader(asked(1, 0.5)).play(asked(2, 0.5), [20.0], (1, 0))
    both = replay.begun[0] != replay.choices[0]
    assert 0.2 < both.mean() < 0.8
    assert set(np.round(replay.paid_usd[0][both], 6)) == {0.011}


def test_confidence_is_calibrated() -> None:
    cheap, _ = Cascader(asked(1, 0.5)).calibrations(asked(2, 0.5), ("cheap", "dear"), (0, 1))
    assert cheap.ece < 0.03 < cheap.ece_raw


def two_domains(seed: int, count: int = 3_000) -> Asked:
    """A table of three models. In the first domain a stronger model answers what the cheap one
    doubts; in the second all err alike, and the cheap one doubts as often."""
    random = np.random.default_rng(seed)
    domains = np.arange(count) % 2
    expected = np.where(domains[:, None] == 0, (0.55, 0.75, 0.92), (0.55, 0.56, 0.58))
    scores = (random.random((count, 3)) < expected).astype(float)
    alike = (domains == 1) & (random.random(count) < 0.9)
    scores[alike, 1:] = scores[alike, :1]
    sure = 0.75 + 0.25 * (scores - 0.5) + random.normal(0, 0.1, (count, 3))
    costs = np.tile((0.001, 0.004, 0.012), (count, 1))
    latency = np.full((count, 3), 100.0)
    return Asked(expected, costs, scores, np.clip(sure, 0.01, 0.99), costs, latency, domains)


def by_threshold(table: Asked, thresholds: Floats, strong: int) -> tuple[Floats, Floats]:
    """Costs and accuracies of asking a strong model wherever the cheap one is less sure."""
    asks = table.confidences[:, 0] < thresholds[:, None]
    got = np.where(asks, table.scores[:, strong], table.scores[:, 0])
    paid = table.paid_usd[:, 0] + np.where(asks, table.paid_usd[:, strong], 0.0)
    return paid.mean(axis=1), got.mean(axis=1)


def test_asking_for_benefit_beats_each_model_and_every_threshold_at_equal_cost() -> None:
    fresh = two_domains(2)
    replay = Cascader(two_domains(1)).play(fresh, PRICES, (2, 0))
    costs, gains = replay.points(np.arange(len(fresh.scores)))
    for model in (1, 2):
        spent = fresh.paid_usd[:, model].mean()
        alone = fresh.scores[:, model].mean()
        assert float(reached(costs, gains, np.array([spent]))[0]) > alone + 0.02, model
    assert gains[costs.argmin()] >= fresh.scores[:, 0].mean() - 0.01
    spent = np.linspace(0.0025, 0.009, 14)
    for strong in (1, 2):
        plain = reached(*by_threshold(fresh, np.linspace(0.0, 1.0, 41), strong), spent)
        ahead = reached(costs, gains, spent) - plain
        assert float(ahead.min()) > 0.0, strong
        assert float(ahead.mean()) > 0.03, strong


def test_what_asking_again_is_hoped_to_bring_is_what_it_brings() -> None:
    # Of few prompts much is learned that is not so: judged by the very same, it would seem to pay.
    small = two_domains(3, 120)
    noise = np.random.default_rng(4).random(small.confidences.shape)
    blind = Asked(
        np.full(small.scores.shape, 0.6),
        np.full(small.scores.shape, 0.001),
        (np.random.default_rng(5).random(small.scores.shape) < 0.6).astype(float),
        noise,
        small.paid_usd,
        small.latency_ms,
        small.domains,
    )
    hoped = Cascader(blind).hope(blind.domains, 0, 0.0)
    assert float(hoped.mean()) < 0.04


def test_nobody_is_asked_after_a_model_that_is_always_equally_sure() -> None:
    def stolid(seed: int) -> Asked:
        told = asked(seed, 0.5)
        expected = np.tile((0.6, 0.61), (len(told.scores), 1))  # less than the second brings
        return replace(told, expected=expected, confidences=np.full(told.confidences.shape, 0.9))

    replay = Cascader(stolid(1)).play(stolid(2), PRICES, (1, 0))
    assert (replay.begun == replay.choices).all()
    costs, gains = replay.points(np.arange(2_000))
    assert gains[0] > 0.87, "the dear one is asked at once"
    assert costs[0] == pytest.approx(0.01)
