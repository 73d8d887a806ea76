"""Two servers of one model are held for the same, and another model is found out."""

from __future__ import annotations

from random import Random

import numpy as np

from broker.core.answers.same_model import ALPHA, Comparison, Drawn, compare

WORDS = ("law", "says", "that", "rent", "may", "rise", "once", "a", "year", "not")


def answers(random: Random, count: int, sharpness: float, shift: int = 0) -> list[str]:
    """Answers of a model that prefers some words, the more the sharper."""
    weights = [sharpness ** -((place + shift) % len(WORDS)) for place in range(len(WORDS))]
    return [" ".join(random.choices(WORDS, weights, k=12)) for _ in range(count)]


def drawn(random: Random, other: tuple[float, int], prompts: int = 10) -> list[Drawn]:
    return [(answers(random, 8, 2.0), answers(random, 8, *other)) for _ in range(prompts)]


def verdict(seed: int, other: tuple[float, int]) -> Comparison:
    return compare(drawn(Random(seed), other), np.random.default_rng(seed))


def test_the_same_distribution_is_held_for_the_same() -> None:
    p_values = np.array([verdict(seed, (2.0, 0)).p_value for seed in range(60)])
    assert (p_values < ALPHA).sum() <= 3
    assert 0.4 < p_values.mean() < 0.6


def test_another_model_and_a_sharper_one_are_found_out() -> None:
    for other in ((2.0, 3), (5.0, 0)):
        found = verdict(1, other)
        assert found.differs
        assert found.discrepancy > 0.0


def test_two_that_always_say_the_same_are_the_same_and_two_that_never_do_are_not() -> None:
    random = np.random.default_rng(1)
    assert compare([(["a"] * 4, ["a"] * 4)] * 5, random).p_value == 1.0
    assert compare([(["a"] * 4, ["b"] * 4)] * 5, random).differs
    assert compare([(["", ""], ["", ""])], random).p_value == 1.0


def test_the_same_seed_gives_the_same_verdict() -> None:
    assert verdict(3, (2.0, 0)) == verdict(3, (2.0, 0))
