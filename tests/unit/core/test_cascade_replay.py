"""Cascades begin cheaply and ask again where that pays, and are no worse where nothing tells."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.cascade_replay import Asked, Cascader
from broker.core.frontier import Replay, reached

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
    alone = Replay(np.array([everyone * 0, everyone * 0 + 1]), played.scores, played.paid_usd, 1, 0)
    halfway = np.array([0.006])
    gain = reached(*replay.points(everyone), halfway) - reached(*alone.points(everyone), halfway)
    assert least < float(gain[0]) < most


def test_an_answer_that_was_dropped_is_paid_too() -> None:
    replay = Cascader(asked(1, 0.5)).play(asked(2, 0.5), [20.0], (1, 0))
    both = replay.begun[0] != replay.choices[0]
    assert 0.2 < both.mean() < 0.8
    assert set(np.round(replay.paid_usd[0][both], 6)) == {0.011}


def test_confidence_is_calibrated() -> None:
    cheap, _ = Cascader(asked(1, 0.5)).calibrations(asked(2, 0.5), ("cheap", "dear"))
    assert cheap.ece < 0.03 < cheap.ece_raw
