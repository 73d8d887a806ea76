"""What groups add to what is expected of models, against the same told answer by answer."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.columns import Floats, Numbers
from broker.core.quality.gains import GROUP_PRIOR, SCALE_MAX, Answers, find_gains
from broker.core.quality.groups import GROUPINGS
from broker.core.quality.lessons import BYTES_MAX, TABLE_SIZE_MAX, Lessons
from broker.core.requirements import Prompt

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


def gains(seen: Answers) -> Floats:
    return find_gains(seen, SHAPE[0]).table(np.arange(MODELS))


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
    assert gains(seen) == pytest.approx(told_one_by_one(seen))


def test_as_much_is_known_of_very_many_as_of_each_part_of_them() -> None:
    random, size = np.random.default_rng(2), 2 * TABLE_SIZE_MAX
    table, unknown = random.random((2, size)), np.full((2, size), np.nan)
    known = Lessons({"law": 0}, table, table, table, unknown, gains=find_gains(some(4), SHAPE[0]))
    groups = tuple(2 + EACH * at for at in range(GROUPINGS))
    prompt = Prompt((0, 1, *groups), (0.7, 0.3, *[1.0 / GROUPINGS] * GROUPINGS))
    numbers = np.sort(random.permutation(size)[: TABLE_SIZE_MAX + 100])

    def of(numbers: Numbers) -> Floats:
        return known.cut("law", numbers, np.ones(numbers.size)).quality(prompt)

    parts = [of(each) for each in np.split(numbers, 4)]
    assert of(numbers) == pytest.approx(np.concatenate(parts))
    assert of(np.arange(size))[numbers] == pytest.approx(np.concatenate(parts))
    assert len(known.tables) == 4


def test_an_answer_that_is_told_in_two_halves_counts_as_one() -> None:
    seen = some(7, noise=0.5)
    twice = Answers(
        *(np.concatenate((each, each)) for each in (seen.groups, seen.models, seen.prompts)),
        apart=np.concatenate((seen.apart, seen.apart)),
        weights=np.concatenate((seen.weights, seen.weights)) / 2.0,
    )
    assert gains(twice) == pytest.approx(gains(seen))


def test_a_prompt_gains_the_mean_of_its_groups_of_all_models_and_of_some() -> None:
    seen, random = some(3), np.random.default_rng(1)
    known, table = find_gains(seen, SHAPE[0]), gains(seen)
    groups = (random.integers(0, EACH, GROUPINGS) + EACH * np.arange(GROUPINGS)).tolist()
    never_asked, numbers = MODELS + 2, np.array([1, 3, MODELS + 1])
    expected = np.full(never_asked, np.mean([known.for_all[each] for each in groups]))
    expected[:MODELS] = table[groups].mean(axis=0)
    quality = np.ones(never_asked)
    known.add(groups, quality)
    assert quality == pytest.approx(1.0 + expected)
    assert known.table(numbers)[groups].mean(axis=0) == pytest.approx(expected[numbers])


def test_however_many_lists_are_asked_for_what_is_remembered_of_them_has_an_end() -> None:
    random, size = np.random.default_rng(2), 60_000
    table, groups = random.random((2, size)), 440
    known = Lessons({"law": 0}, table, table, table, table, gains=find_gains(some(4), groups))
    most = 0
    for each in (TABLE_SIZE_MAX, size // 2):
        for _ in range(40):
            known.cut("law", random.permutation(size)[:each], np.ones(each))
            held = sum(table.nbytes for _, table in known.tables.values())
            held += sum(cut.fit.nbytes + cut.tokens_out.nbytes for cut in known.cuts.values())
            assert held <= BYTES_MAX
            most = max(most, len(known.cuts))
        assert most > 1


def test_what_is_known_of_a_list_is_worked_out_once_however_long_it_is() -> None:
    table = np.random.default_rng(2).random((2, 3 * TABLE_SIZE_MAX))
    known = Lessons({"law": 0}, table, table, table, table)
    numbers = np.arange(3 * TABLE_SIZE_MAX)
    first = known.cut("law", numbers, np.ones(numbers.size))
    assert known.cut("law", numbers, np.ones(numbers.size)) is first
    known.forget_cuts()
    assert known.cut("law", numbers, np.ones(numbers.size)) is not first
