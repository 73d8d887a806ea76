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

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers
from broker.core.fitting import fit_logistic, fit_temperature, folds, softmax
from broker.core.groups import Groups, look, make_groups

SHRINKAGES = (0.1, 0.3, 0.7)
FOLDS = 4
STRANGERS = 0.25
"""How many prompts of no known domain there are to one of a known, where nothing else is known."""
_TINY = 1e-9


class Recognised(msgspec.Struct, frozen=True):
    """What a prompt is about. `domain` is None where no known domain is likelier than not."""

    domain: str | None
    confidence: float
    """Of the domain; of its being none of the known, where `domain` is None."""


@dataclass(frozen=True, slots=True, eq=False)
class Discriminant:
    """Linear scores of D domains, and their means."""

    weights: Floats
    """(D, length)"""
    bias: Floats
    means: Floats

    def scores(self, vectors: Floats) -> Floats:
        """Return log-likelihoods but for what the domains have in common: (vectors, D)."""
        return np.asarray(vectors @ self.weights.T + self.bias)

    def strangeness(self, vectors: Floats) -> Floats:
        """Return how much farther the nearest mean is than the middle: squared, per dimension."""
        farther = (self.means**2).sum(axis=1) - 2.0 * vectors @ self.means.T
        return np.asarray(farther.min(axis=1) / vectors.shape[1])


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
    groups: Groups
    """Of the examples."""
    key: str = ""
    """Of what it was learned from: groups of the same number are the same where keys are."""

    def standardise(self, vectors: Floats) -> Floats:
        """Return vectors as they are compared: (n, length)."""
        return np.asarray((vectors - self.centre) * self.scale)

    def probabilities(self, vectors: Floats) -> Floats:
        """Return p of each domain, and last of none of them; vectors as an encoder made them."""
        standard = self.standardise(vectors)
        start, slope = self.known
        strange = self.discriminant.strangeness(standard)
        known = 1.0 / (1.0 + np.exp(-np.clip(start + slope * strange, -30.0, 30.0)))[:, None]
        return np.hstack((self.among_known(standard) * known, 1.0 - known))

    def among_known(self, standard: Floats) -> Floats:
        """Return p of each domain of prompts that are of one of them; vectors standardised."""
        return softmax(self.discriminant.scores(standard) / self.temperature)

    def looks(self, standard: Floats) -> Floats:
        """Return what prompts look like, as groups go by; vectors standardised."""
        return look(standard, self.meaning, self.among_known(standard))

    def told_groups(self, groups: Sequence[int]) -> str:
        """Return a prompt's groups as they are kept with its call: numbers, and of which key."""
        return f"{self.key}:{'.'.join(map(str, groups))}"

    def read_groups(self, told: str) -> list[int] | None:
        """Return what `told_groups` told; None where that was another, whose groups are others."""
        key, _, groups = told.partition(":")
        return list(map(int, groups.split("."))) if key == self.key else None

    def recognise(self, vector: Floats) -> Recognised:
        """Return the likeliest domain of one prompt, None where that is 'none of them'."""
        chances = self.probabilities(vector[None, :].astype(np.float64))[0]
        best = int(chances.argmax())
        name = self.names[best] if best < len(self.names) else None
        return Recognised(name, float(chances[best]))


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
    scale = 1.0 / np.maximum(spread, max(float(np.median(spread)) * 0.5, _TINY))
    standard = (vectors - centre) * scale
    shrinkage, temperature, held_out = _settle(standard, labels, len(names))
    discriminant = fit(standard, labels, len(names), shrinkage)
    odd = discriminant.strangeness((strangers - centre) * scale)
    known = _weigh_strangeness(standard, labels, odd)
    meaning = vectors.shape[1] if meaning is None else meaning
    # An example is too surely of its own domain: who comes is placed by less certain odds.
    odds = softmax(held_out / temperature)
    return Recogniser(
        names=tuple(names),
        centre=centre,
        scale=scale,
        discriminant=discriminant,
        temperature=temperature,
        known=known,
        shrinkage=shrinkage,
        meaning=meaning,
        groups=make_groups(look(standard, meaning, odds)),
    )


def among_held_out(recogniser: Recogniser, standard: Floats, labels: Numbers) -> Floats:
    """Return p of each domain of examples, each as told by who had not seen it."""
    [scores] = _held_out(standard, labels, len(recogniser.names), [recogniser.shrinkage])
    return softmax(scores / recogniser.temperature)


def fit(vectors: Floats, labels: Numbers, count: int, shrinkage: float) -> Discriminant:
    """Fit the discriminant of `count` domains to standardised vectors."""
    [fitted] = _fit(vectors, labels, count, [shrinkage])
    return fitted


def _fit(
    vectors: Floats, labels: Numbers, count: int, shrinkages: Sequence[float]
) -> list[Discriminant]:
    """Fit one for each shrinkage: most of the work is the same for all."""
    sums, counts = _sums(vectors, labels, count)
    means = sums / np.maximum(counts, 1.0)
    apart = vectors - means[labels]
    covariance = apart.T @ apart / max(len(apart), 1)
    fitted = []
    for shrinkage in shrinkages:
        weights = means @ _inverse(covariance, shrinkage)
        fitted.append(Discriminant(weights, -0.5 * np.einsum("ij,ij->i", weights, means), means))
    return fitted


def _sums(vectors: Floats, labels: Numbers, count: int) -> tuple[Floats, Floats]:
    """Return the sum of each domain's vectors, and how many they are, in a column."""
    members = np.zeros((count, len(labels)))
    members[labels, np.arange(len(labels))] = 1.0
    return members @ vectors, members.sum(axis=1, keepdims=True)


def _inverse(covariance: Floats, shrinkage: float) -> Floats:
    own = np.diag(covariance)
    shrunk = covariance * (1.0 - shrinkage)
    floor = max(float(own.mean()) * 0.05, _TINY)
    shrunk[np.diag_indices_from(shrunk)] += shrinkage * own + floor
    return np.asarray(np.linalg.inv(shrunk))


def _settle(vectors: Floats, labels: Numbers, count: int) -> tuple[float, float, Floats]:
    """Return the shrinkage and the temperature under which held-out examples are likeliest, and
    what these score with that shrinkage."""
    each = _held_out(vectors, labels, count, SHRINKAGES)
    losses = []
    for shrinkage, scores in zip(SHRINKAGES, each, strict=True):
        temperature, loss = fit_temperature(scores, labels)
        losses.append((loss, shrinkage, temperature))
    best = min(losses)
    return best[1], best[2], each[losses.index(best)]


def _held_out(
    vectors: Floats, labels: Numbers, count: int, shrinkages: Sequence[float]
) -> list[Floats]:
    """Return the scores of examples by who was fitted to those of other folds, by shrinkage."""
    places = folds(labels, FOLDS)
    scores = [np.zeros((len(labels), count)) for _ in shrinkages]
    for fold in range(FOLDS):
        out = places == fold
        if out.any() and not out.all():
            for own, fitted in zip(
                scores, _fit(vectors[~out], labels[~out], count, shrinkages), strict=True
            ):
                own[out] = fitted.scores(vectors[out])
    return scores


def _weigh_strangeness(vectors: Floats, labels: Numbers, odd: Floats) -> tuple[float, float]:
    """Return (a, b) of p(known); `odd` is how strange general prompts look."""
    held_out = _strangeness_of(folds(labels, FOLDS), vectors, labels)
    if np.unique(labels).size > 2:
        # Whoever has never seen a domain should find it strange, however well it is written.
        odd = np.concatenate((odd, _strangeness_of(labels, vectors, labels)))
    values = np.concatenate((held_out, odd))
    outcomes = np.repeat((1.0, 0.0), (held_out.size, odd.size))
    share = STRANGERS * held_out.size / max(odd.size, 1)
    return fit_logistic(values, outcomes, np.repeat((1.0, share), (held_out.size, odd.size)))


def _strangeness_of(groups: Numbers, vectors: Floats, labels: Numbers) -> Floats:
    """Return how strange the examples of each group look to who has seen the other groups only."""
    strange, count = np.zeros(len(labels)), int(labels.max()) + 1
    sums, counts = _sums(vectors, labels, count)
    for group in np.unique(groups):
        out = groups == group
        if out.all():
            continue
        own_sums, own_counts = _sums(vectors[out], labels[out], count)
        left = (counts - own_counts)[:, 0] > 0.0
        means = (sums - own_sums)[left] / (counts - own_counts)[left]
        strange[out] = Discriminant(means, means[:, 0], means).strangeness(vectors[out])
    return strange
