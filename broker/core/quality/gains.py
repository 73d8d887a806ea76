"""What the groups of a prompt add to what its domains make one expect of models.

It has two parts, each shrunk for itself, as in a layout of two ways with random effects (Searle,
Casella and McCulloch, "Variance Components", 1992): how hard a group's prompts are for all models,
and what one model does beyond that. The first is told by all answers and varies much more; were the
two one, who was never asked the hard prompts would look good at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker.core.columns import Floats, Numbers
from broker.core.quality.groups import GROUPINGS

GROUP_PRIOR: Final = 15.0
"""To be no better or worse than expected counts as so many answers."""
SCALE_MAX: Final = 2.0
"""Where domains tell little and groups much, shrunk gains are too small: they are scaled up to so
much. Without that what is expected of models is too much alike, and off by what groups know."""
_TINY: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Answers to prompts of known groups; arrays of one length."""

    groups: Numbers
    """(answers, GROUPINGS)"""
    models: Numbers
    prompts: Numbers
    """The same number for answers to the same prompt, counted from 0."""
    apart: Floats
    """By how much each was better than its domain makes one expect."""
    weights: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """By how much scores are better than expected: of all models, and beyond that of the few that
    have answered prompts of a group. As a table of groups by models that would be 41 MB for ten
    thousand, nearly all of it the same; so it is 14 bytes for each group of each answer at most."""

    for_all: list[float]
    """Of each group."""
    of_groups: Beyond
    of_models: Beyond
    """The same in another order."""

    def add(self, groups: Sequence[int], quality: Floats) -> None:
        """Add to the expected score of each model what the groups of a prompt add, one of each
        grouping."""
        begins, known = self.of_groups.begins, self.of_groups
        own = [slice(begins.item(each), begins.item(each + 1)) for each in groups]
        models = np.concatenate([known.who[each] for each in own])
        if models.size:
            beyond = np.concatenate([known.beyond[each] for each in own])
            quality += np.bincount(models, beyond, quality.size) / GROUPINGS
        quality += sum([self.for_all[each] for each in groups]) / GROUPINGS

    def table(self, models: Numbers) -> Floats:
        """Return the same of some models as a table: (groups, these models)."""
        table = np.empty((len(self.for_all), models.size))
        self.write(models, table)
        return table

    def write(self, models: Numbers, table: Floats) -> None:
        """Write what `table` returns into one that is there."""
        known, begins = self.of_models, self.of_models.begins
        # Who came since then has no more answers than who comes last.
        first, last = (begins[np.minimum(models + at, begins.size - 1)] for at in (0, 1))
        counts = last - first
        at = np.arange(counts.sum()) + np.repeat(first - counts.cumsum() + counts, counts)
        table[:] = np.array(self.for_all)[:, None]
        table[known.who[at], np.repeat(np.arange(models.size), counts)] += known.beyond[at]


@dataclass(frozen=True, slots=True, eq=False)
class Beyond:
    """What single models do beyond all, one group or one model after the other."""

    begins: Numbers
    """Where each begins; and at last where the last ends."""
    who: NDArray[np.int32] | NDArray[np.uint16]
    """Models, or groups where it is one model after the other."""
    beyond: NDArray[np.float32]


NO_GAINS: Final = Gains(
    [],
    Beyond(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)),
    Beyond(np.zeros(1, np.int64), np.zeros(0, np.uint16), np.zeros(0, np.float32)),
)


def find_gains(answers: Answers, groups: int) -> Gains:
    """Return by how much scores are better than expected, for so many groups.

    Both parts, of a group and of a model in it, are shrunk by GROUP_PRIOR and scaled by how well
    they foretell a score without what was said of its prompt, by least squares: where they tell
    nothing they add nothing, and where they tell more than domains do they add more.
    """
    own, weights, good = answers.groups, answers.weights, answers.weights * answers.apart
    models = int(answers.models.max(initial=0)) + 1
    # Those that were answered in alone: there may be thousands of models, most asked little.
    cells, inverse = np.unique(own * models + answers.models[:, None], return_inverse=True)
    inverse = inverse.reshape(own.shape)
    told_each, good_each = (_summed(inverse, each, cells.size) for each in (weights, good))
    told_all, good_all = (_summed(own, each, groups) for each in (weights, good))
    prompts, (told_own, good_own) = answers.prompts, _alike(answers, weights, good)
    others = told_each[inverse] - told_own
    without = (good_all[own] - np.bincount(prompts, good)[prompts, None]) / (
        told_all[own] - np.bincount(prompts, weights)[prompts, None] + GROUP_PRIOR
    )
    beyond = (good_each[inverse] - good_own - others * without) / (others + GROUP_PRIOR)
    for_all = without.mean(axis=1)
    shared = _scale(weights, answers.apart, for_all)
    own_share = _scale(weights, answers.apart - shared * for_all, beyond.mean(axis=1))
    usual, of_group = good_all / (told_all + GROUP_PRIOR), cells // models
    apart = own_share * (good_each - told_each * usual[of_group]) / (told_each + GROUP_PRIOR)
    return Gains((shared * usual).tolist(), *_laid_out(cells, apart, (groups, models)))


def _laid_out(cells: Numbers, apart: Floats, shape: tuple[int, int]) -> tuple[Beyond, Beyond]:
    """Lay out what is known of cells, which rise, by groups and by models."""
    groups, models = np.divmod(cells, shape[1])
    beyond, order = apart.astype(np.float32), models.argsort(kind="stable")
    by_group = groups.searchsorted(np.arange(shape[0] + 1))
    by_model = models[order].searchsorted(np.arange(shape[1] + 1))
    return (
        Beyond(by_group, models.astype(np.int32), beyond),
        Beyond(by_model, groups[order].astype(np.uint16), beyond[order]),
    )


def _alike(answers: Answers, *amounts: Floats) -> list[Floats]:
    """Sum amounts over each model's answers to the same prompt, as columns: who is asked again, as
    by checks that repeat, says again what it said."""
    pairs = answers.prompts * (int(answers.models.max(initial=0)) + 1) + answers.models
    same = np.unique(pairs, return_inverse=True)[1]
    return [np.asarray(np.bincount(same, each)[same, None], np.float64) for each in amounts]


def _summed(places: Numbers, amounts: Floats, size: int) -> Floats:
    """Sum the amounts of answers at each of their places, which are as many of each answer."""
    each = np.repeat(amounts, places.shape[1])
    return np.asarray(np.bincount(places.ravel(), each, size), dtype=np.float64)


def _scale(weights: Floats, apart: Floats, foretold: Floats) -> float:
    """Return what times the foretold comes nearest to what came, within 0..SCALE_MAX."""
    scale = float((weights * apart * foretold).sum() / ((weights * foretold**2).sum() + _TINY))
    return min(max(scale, 0.0), SCALE_MAX)
