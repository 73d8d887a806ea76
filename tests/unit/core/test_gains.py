"""What groups add to what is expected of models, against the same told answer by answer."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.columns import Floats
from broker.core.groups import GROUP_PRIOR, GROUPINGS, SCALE_MAX, Answers, gains

EACH, MODELS = 3, 4
SHAPE = EACH * GROUPINGS, MODELS


def some(seed: int, prompts: int = 30, noise: float = 0.1) -> Answers:
    """Answers of some models to prompts whose groups are hard, each in its own way."""
    random = np.random.default_rng(seed)
    groups = random.integers(0, EACH, (prompts, GROUPINGS)) + EACH * np.arange(GROUPINGS)
    asked = np.repeat(np.arange(prompts), 3)
    models = random.integers(0, MODELS, asked.size)
    hard = np.arange(EACH * GROUPINGS) % EACH - 1.0
    apart = hard[groups[asked]].mean(axis=1) * (1.0 + models) / MODELS
    apart += random.normal(0.0, noise, asked.size)
    return Answers(groups[asked], models, asked, apart, random.uniform(0.5, 1.5, asked.size))


def mean_of(seen: Answers, chosen: Floats, beyond: float = 0.0) -> float:
    """By how much the chosen answers were better than `beyond`, shrunk."""
    good = (seen.weights * (seen.apart - beyond))[chosen].sum()
    return float(good / (seen.weights[chosen].sum() + GROUP_PRIOR))


def told_one_by_one(seen: Answers) -> Floats:
    """What `gains` comes to."""
    foretold = []
    for at, groups in enumerate(seen.groups):
        fresh = seen.prompts != seen.prompts[at]
        again = (seen.prompts == seen.prompts[at]) & (seen.models == seen.models[at])
        own = (seen.models == seen.models[at]) & ~again
        parts = []
        for column, group in enumerate(groups):
            of_group = seen.groups[:, column] == group
            usual = mean_of(seen, of_group & fresh)
            parts.append((usual, mean_of(seen, of_group & own, usual)))
        foretold.append(np.mean(parts, axis=0))
    for_all, beyond = np.array(foretold).T
    shared = scale(seen.weights, seen.apart, for_all)
    own_share = scale(seen.weights, seen.apart - shared * for_all, beyond)
    table = np.zeros(SHAPE)
    for group, model in np.ndindex(SHAPE):
        of_group = (seen.groups == group).any(axis=1)
        usual = mean_of(seen, of_group)
        own = mean_of(seen, of_group & (seen.models == model), usual)
        table[group, model] = shared * usual + own_share * own
    return table


def scale(weights: Floats, apart: Floats, foretold: Floats) -> float:
    times = (weights * apart * foretold).sum() / (weights * foretold**2).sum()
    return float(np.clip(times, 0.0, SCALE_MAX))


@pytest.mark.parametrize("seed", range(5))
def test_gains_are_what_all_other_prompts_foretell_shrunk_and_scaled(seed: int) -> None:
    seen = some(seed)
    assert gains(seen, SHAPE) == pytest.approx(told_one_by_one(seen))


def test_an_answer_that_is_told_in_two_halves_counts_as_one() -> None:
    seen = some(7, noise=0.5)
    twice = Answers(
        *(np.concatenate((each, each)) for each in (seen.groups, seen.models, seen.prompts)),
        apart=np.concatenate((seen.apart, seen.apart)),
        weights=np.concatenate((seen.weights, seen.weights)) / 2.0,
    )
    assert gains(twice, SHAPE) == pytest.approx(gains(seen, SHAPE))
