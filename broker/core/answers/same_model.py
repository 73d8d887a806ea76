"""Tells whether two endpoints answer alike, as two servers of one model must.

A two-sample test of completions of the same prompts: the maximum mean discrepancy (Gretton et al.,
"A Kernel Two-Sample Test", 2012) with a Hamming kernel over the first characters, as in "Model
Equality Testing: Which Model Is This API Serving?" (Gao, Liang and Guestrin, 2024), summed over
prompts; answers are permuted within each prompt, so that p is exact whatever they look like.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from broker.core.columns import Floats

CHARACTERS = 200
"""So much of each answer is compared; answers that part never meet again."""
PERMUTATIONS = 999
ALPHA = 0.01
"""A difference that chance would bring about less often than this is one of models."""
SAMPLES_MIN = 2

Drawn = tuple[Sequence[str], Sequence[str]]
"""Answers to one prompt: of the endpoint, and of the reference."""


class Comparison(msgspec.Struct, frozen=True):
    """What the test says."""

    p_value: float
    discrepancy: float
    """Squared, the mean over prompts; about 0 where both are the same."""
    prompts: int
    answers: int
    """Of both together."""

    @property
    def differs(self) -> bool:
        """True where the two are not the same model, or not served alike."""
        return self.p_value < ALPHA


def compare(drawn: Sequence[Drawn], random: np.random.Generator) -> Comparison:
    """Compare answers, at least SAMPLES_MIN of each side to each prompt, at least one prompt."""
    assert drawn, "there is nothing to compare"
    assert all(min(map(len, each)) >= SAMPLES_MIN for each in drawn), "too few answers"
    discrepancies = np.zeros(1 + PERMUTATIONS)
    for own, reference in drawn:
        sides = np.zeros((1 + PERMUTATIONS, len(own) + len(reference)))
        sides[:, : len(own)] = 1.0
        sides[1:] = random.permuted(sides[1:], axis=1)
        discrepancies += _discrepancies(_kernel([*own, *reference]), sides)
    observed = float(discrepancies[0])
    return Comparison(
        p_value=float((discrepancies >= observed - 1e-9).mean()),
        discrepancy=observed / len(drawn),
        prompts=len(drawn),
        answers=sum(len(own) + len(reference) for own, reference in drawn),
    )


def _kernel(answers: Sequence[str]) -> Floats:
    """Return for each two answers the share of places at which they have the same character."""
    codes = np.full((len(answers), CHARACTERS), -1, dtype=np.int64)
    for row, each in enumerate(answers):
        text = each[:CHARACTERS]
        codes[row, : len(text)] = list(map(ord, text))
    width = min(max(*map(len, answers), 1), CHARACTERS)
    same = codes[:, None, :width] == codes[None, :, :width]
    return np.asarray(same.mean(axis=2))


def _discrepancies(kernel: Floats, sides: Floats) -> Floats:
    """Return unbiased estimates of the squared discrepancy; 1 marks one side, in rows."""
    others = 1.0 - sides
    own, other = sides.sum(axis=1), others.sum(axis=1)

    def among(one: Floats, two: Floats) -> Floats:
        return np.asarray(((one @ kernel) * two).sum(axis=1))

    # An answer is like itself, which says nothing: the diagonal, all ones, is left out.
    within = (among(sides, sides) - own) / (own * (own - 1.0))
    within += (among(others, others) - other) / (other * (other - 1.0))
    return np.asarray(within - 2.0 * among(sides, others) / (own * other))
