"""Recognises what a prompt is about: p(domain | vector), learned from a few examples of each.

A linear discriminant with the covariance of all domains in common, shrunk towards its diagonal:
`s_d = x'P mu_d - mu_d'P mu_d / 2`, `p = softmax(s / T)`; shrinkage and temperature T are those
under which held-out examples are likeliest (Guo et al., "On Calibration of Modern Neural
Networks", 2017).
Whether the prompt is of any known domain is told by how much nearer it lies to the nearest domain's
mean than to the middle of all prompts; what that is worth is weighed on general prompts, and on
examples of domains that were left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers, middle
from broker.core.quality.fitting import fit_logistic, fit_temperature, folds, softmax

SHRINKAGES = (0.1, 0.3, 0.7)
FOLDS = 4
HELD_OUT_MAX = 4_096
"""So many examples, evenly drawn from all domains, tell how sure to be."""
STRANGERS = 0.25
"""How many prompts of no known domain there are to one of a known, where nothing else is known."""
_TINY = 1e-9


class Recognised(msgspec.Struct, frozen=True):
    """What a prompt is about. `domain` is None where no known domain is likelier than not."""

    domain: str | None
    confidence: float
    """Of the domain; of its being none of the known, where `domain` is None."""


class Look(NamedTuple):
    """What a recogniser has worked out of one prompt, for all who ask of it."""

    by: Recogniser
    standard: Floats
    """(length,): its vector, standardised."""
    odds: Floats
    """(D,): as `Recogniser.among_known`."""


@dataclass(frozen=True, slots=True, eq=False)
class Discriminant:
    """Linear scores of D domains, and their means."""

    weights: Floats
    """(D, length)"""
    bias: Floats
    means: Floats
    squares: Floats
    """(D,): squared lengths of the means."""

    def scores(self, vectors: Floats) -> Floats:
        """Return log-likelihoods but for what the domains have in common: (vectors, D)."""
        return np.asarray(vectors @ self.weights.T + self.bias)

    def strangeness(self, vectors: Floats) -> Floats:
        """Return how much farther the nearest mean is than the middle; see `_strangeness`."""
        return _strangeness(vectors, (self.means, self.squares))


@dataclass(frozen=True, slots=True, eq=False)
class Recogniser:
    """All that was learned, as plain numbers. Build it with `learn`."""

    names: tuple[str, ...]
    centre: Floats
    scale: Floats
    discriminant: Discriminant
    temperature: float
    known: tuple[float, float]
    """p(known) = 1 / (1 + exp(-(a + b * strangeness)))."""
    shrinkage: float
    """That of the discriminant."""
    meaning: int
    """So many of a vector's numbers, the first, say what a prompt means; the others its shape."""

    def standardise(self, vectors: Floats) -> Floats:
        """Return vectors as they are compared: (n, length)."""
        return np.asarray((vectors - self.centre) * self.scale)

    def probabilities(self, vectors: Floats) -> Floats:
        """Return p of each domain, and last of none of them; vectors as an encoder made them."""
        standard = self.standardise(vectors)
        strange = self.discriminant.strangeness(standard)
        known = np.array([self._known(each) for each in strange.tolist()])[:, None]
        return np.hstack((self.among_known(standard) * known, 1.0 - known))

    def among_known(self, standard: Floats) -> Floats:
        """Return p of each domain of prompts that are of one of them; vectors standardised."""
        return softmax(self.discriminant.scores(standard) / self.temperature)

    def look(self, vector: Floats) -> Look:
        """Look at one prompt, as an encoder made its vector: numpy takes half the time for one
        vector that it takes for a row of them."""
        standard = vector - self.centre
        standard *= self.scale
        odds = self.discriminant.weights.dot(standard)
        odds += self.discriminant.bias
        odds -= odds.item(odds.argmax())
        odds /= self.temperature
        np.exp(odds, out=odds)
        odds /= odds.sum()
        return Look(self, standard, odds)

    def recognise(self, look: Look) -> Recognised:
        """Return the likeliest domain of one prompt, None where that is 'none of them'."""
        farther = self.discriminant.means.dot(look.standard)
        farther *= -2.0
        farther += self.discriminant.squares
        known = self._known(farther.item(farther.argmin()) / look.standard.size)
        best = int(look.odds.argmax())
        chance = look.odds.item(best) * known
        if chance >= 1.0 - known:
            return Recognised(self.names[best], chance)
        return Recognised(None, 1.0 - known)

    def _known(self, strangeness: float) -> float:
        start, slope = self.known
        return 1.0 / (1.0 + math.exp(-min(max(start + slope * strangeness, -30.0), 30.0)))


def learn(
    names: Sequence[str],
    labels: Numbers,
    vectors: Floats,
    strangers: Floats,
    meaning: int | None = None,
) -> Recogniser:
    """Learn domains from examples; `labels` are places in `names`, each with two or more.

    `strangers` are vectors of general prompts, about as many things as there are; of all vectors
    the first `meaning` numbers say what prompts mean, or all.
    """
    assert len(names) > 0, "there is nothing to recognise"
    everything = np.vstack((vectors, strangers))
    centre, spread = everything.mean(axis=0), everything.std(axis=0)
    scale = 1.0 / np.maximum(spread, max(middle(spread) * 0.5, _TINY))
    examples = _Examples.of((vectors - centre) * scale, labels, len(names))
    shrinkage, temperature = _settle(examples)
    [discriminant] = _fit(examples.whole, [shrinkage])
    odd = discriminant.strangeness((strangers - centre) * scale)
    return Recogniser(
        names=tuple(names),
        centre=centre,
        scale=scale,
        discriminant=discriminant,
        temperature=temperature,
        known=_weigh_strangeness(examples, odd),
        shrinkage=shrinkage,
        meaning=vectors.shape[1] if meaning is None else meaning,
    )


def some(count: int) -> Numbers:
    """Return the places of HELD_OUT_MAX of `count` examples, evenly spread, or of all."""
    return np.arange(min(count, HELD_OUT_MAX)) * count // max(min(count, HELD_OUT_MAX), 1)


def among_held_out(
    recogniser: Recogniser, standard: Floats, labels: Numbers, rows: Numbers
) -> Floats:
    """Return p of each domain of some rows of the examples, as told by who had not seen them."""
    examples = _Examples.of(standard, labels, len(recogniser.names))
    [scores] = _held_out(examples, rows, [recogniser.shrinkage])
    return softmax(scores / recogniser.temperature)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """All of some examples that a discriminant is fitted to. Those of a part can be taken off."""

    counts: Floats
    """(domains, 1)"""
    vectors: Floats
    """(domains, length)"""
    squares: Floats
    """(length, length): the products of vectors with themselves, of all domains."""

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.counts + other.counts, self.vectors + other.vectors, self.squares + other.squares
        )

    def __sub__(self, part: _Sums) -> _Sums:
        return _Sums(
            self.counts - part.counts, self.vectors - part.vectors, self.squares - part.squares
        )

    @property
    def means(self) -> Floats:
        """(domains, length); zeros where there is no example."""
        return np.asarray(self.vectors / np.maximum(self.counts, 1.0))


def _sum(vectors: Floats, labels: Numbers, count: int) -> _Sums:
    order = labels.argsort(kind="stable")
    present, first = np.unique(labels[order], return_index=True)
    counts, sums = np.zeros((count, 1)), np.zeros((count, vectors.shape[1]))
    counts[:, 0] = np.bincount(labels, minlength=count)
    if present.size:
        sums[present] = np.add.reduceat(vectors[order], first, axis=0)
    return _Sums(counts, sums, vectors.T @ vectors)


@dataclass(frozen=True, slots=True, eq=False)
class _Examples:
    """Standardised examples, dealt out over folds."""

    vectors: Floats
    labels: Numbers
    folds: Numbers
    of_fold: Sequence[_Sums]
    whole: _Sums

    @classmethod
    def of(cls, vectors: Floats, labels: Numbers, count: int) -> _Examples:
        """Sum up each fold once: who leaves one out takes it off the whole."""
        places = folds(labels, FOLDS)
        of_fold = [_sum(vectors[places == at], labels[places == at], count) for at in range(FOLDS)]
        whole = of_fold[0] + of_fold[1] + of_fold[2] + of_fold[3]
        return cls(vectors, labels, places, of_fold, whole)


def _fit(sums: _Sums, shrinkages: Sequence[float]) -> list[Discriminant]:
    """Fit one for each shrinkage: most of the work is the same for all."""
    means = sums.means
    covariance = (sums.squares - means.T @ sums.vectors) / max(float(sums.counts.sum()), 1.0)
    fitted = []
    for shrinkage in shrinkages:
        weights = means @ _inverse(covariance, shrinkage)
        bias = -0.5 * np.einsum("ij,ij->i", weights, means)
        fitted.append(Discriminant(weights, bias, means, _squares(means)))
    return fitted


def _inverse(covariance: Floats, shrinkage: float) -> Floats:
    own = np.diag(covariance)
    shrunk = covariance * (1.0 - shrinkage)
    floor = max(float(own.mean()) * 0.05, _TINY)
    shrunk[np.diag_indices_from(shrunk)] += shrinkage * own + floor
    return np.asarray(np.linalg.inv(shrunk))


def _settle(examples: _Examples) -> tuple[float, float]:
    """Return the shrinkage and the temperature under which held-out examples are likeliest."""
    rows = some(len(examples.labels))
    losses = []
    for shrinkage, scores in zip(SHRINKAGES, _held_out(examples, rows, SHRINKAGES), strict=True):
        temperature, loss = fit_temperature(scores, examples.labels[rows])
        losses.append((loss, shrinkage, temperature))
    return min(losses)[1:]


def _held_out(examples: _Examples, rows: Numbers, shrinkages: Sequence[float]) -> list[Floats]:
    """Return the scores of these examples by who was fitted to those of other folds, by
    shrinkage."""
    scores = [np.zeros((rows.size, len(examples.whole.counts))) for _ in shrinkages]
    for fold, part in enumerate(examples.of_fold):
        out, others = examples.folds[rows] == fold, examples.whole - part
        if out.any() and others.counts.any():
            own = examples.vectors[rows[out]]
            for told, fitted in zip(scores, _fit(others, shrinkages), strict=True):
                told[out] = fitted.scores(own)
    return scores


def _weigh_strangeness(examples: _Examples, odd: Floats) -> tuple[float, float]:
    """Return (a, b) of p(known); `odd` is how strange general prompts look."""
    rows = some(len(examples.labels))
    held_out = np.zeros(rows.size)
    for fold, part in enumerate(examples.of_fold):
        out, others = examples.folds[rows] == fold, examples.whole - part
        left = others.counts[:, 0] > 0.0
        if out.any() and left.any():
            means = others.means[left]
            held_out[out] = _strangeness(examples.vectors[rows[out]], (means, _squares(means)))
    if np.count_nonzero(examples.whole.counts) > 2:
        # Whoever has never seen a domain should find it strange, however well it is written.
        own = examples.labels[rows]
        means = examples.whole.means
        unseen = _strangeness(examples.vectors[rows], (means, _squares(means)), own)
        odd = np.concatenate((odd, unseen))
    values = np.concatenate((held_out, odd))
    outcomes = np.repeat((1.0, 0.0), (held_out.size, odd.size))
    share = STRANGERS * held_out.size / max(odd.size, 1)
    return fit_logistic(values, outcomes, np.repeat((1.0, share), (held_out.size, odd.size)))


def _squares(means: Floats) -> Floats:
    return np.asarray((means**2).sum(axis=1))


def _strangeness(
    vectors: Floats, domains: tuple[Floats, Floats], but_for: Numbers | None = None
) -> Floats:
    """Return how much farther the nearest mean is than the middle: squared, per dimension.
    `domains` is (means, their squared lengths); of each vector the mean at its place in `but_for`
    is passed over."""
    means, squares = domains
    farther = squares - 2.0 * vectors @ means.T
    if but_for is not None:
        farther[np.arange(len(farther)), but_for] = np.inf
    return np.asarray(farther.min(axis=1) / vectors.shape[1])
