"""What another policy would have got is told from logged chances, and lies where it should."""

from __future__ import annotations

import numpy as np
import pytest

from broker.core.quality.off_policy import Evaluated, Logged, evaluate

TRUE = np.array([0.8, 0.6, 0.3])


def logged(calls: int, other: tuple[float, ...], seed: int) -> Evaluated:
    """Three arms of known worth, chosen by chances that differ from call to call."""
    random = np.random.default_rng(seed)
    chances = random.dirichlet((4.0, 2.0, 2.0), calls) * 0.9 + 0.1 / 3
    taken = np.array([random.choice(3, p=each) for each in chances])
    rewards = (random.random(calls) < TRUE[taken]).astype(float)
    return evaluate(Logged(rewards, taken, chances, np.tile(other, (calls, 1))))


@pytest.mark.parametrize("other", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1 / 3, 1 / 3, 1 / 3)])
def test_all_three_lie_near_the_truth_and_their_intervals_hold_it(
    other: tuple[float, ...],
) -> None:
    truth = float(TRUE @ other)
    runs = [logged(1_500, other, seed) for seed in range(40)]
    for name in ("ips", "snips", "dr"):
        estimates = [getattr(each, name) for each in runs]
        assert np.mean([each.value for each in estimates]) == pytest.approx(truth, abs=0.02)
        held = np.mean([each.low <= truth <= each.high for each in estimates])
        assert held >= 0.8, (name, held)
    wide, narrow = (
        np.mean([each.high - each.low for each in told])
        for told in ([each.ips for each in runs], [each.dr for each in runs])
    )
    assert narrow < wide


def test_a_choice_that_never_had_a_chance_is_told_to_be_unsupported() -> None:
    rewards, taken = np.ones(50), np.zeros(50, dtype=np.int64)
    chances, other = np.tile((1.0, 0.0), (50, 1)), np.tile((0.0, 1.0), (50, 1))
    told = evaluate(Logged(rewards, taken, chances, other))
    assert (told.supported, told.effective, told.snips.value) == (0.0, 0.0, 0.0)
    assert (told.least, told.most) == (0.0, 1.0), "anything at all"
    same = evaluate(Logged(rewards, taken, chances, chances))
    assert (same.supported, same.effective) == (1.0, 50.0)
    assert (same.least, same.most) == (1.0, 1.0)
    assert same.ips.value == same.snips.value == same.dr.value == 1.0


def test_the_truth_lies_between_least_and_most_where_some_choices_had_no_chance() -> None:
    random = np.random.default_rng(5)
    chances = np.tile((0.6, 0.4, 0.0), (2_000, 1))
    taken = np.array([random.choice(3, p=each) for each in chances])
    rewards = (random.random(2_000) < TRUE[taken]).astype(float)
    other = np.tile((0.0, 0.7, 0.3), (2_000, 1))
    told = evaluate(Logged(rewards, taken, chances, other))
    assert told.supported == pytest.approx(0.7)
    assert told.least == pytest.approx(0.7 * TRUE[1], abs=0.03)
    assert told.most == pytest.approx(0.7 * TRUE[1] + 0.3, abs=0.03)
    assert told.least < TRUE @ other[0] < told.most
    assert told.ips.value == pytest.approx(told.least, abs=0.03), "as if the rest were worthless"
