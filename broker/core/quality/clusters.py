"""Groups vectors around centres: Lloyd's k-means with the seeding of k-means++.

Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", 2007.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from broker.core.columns import Floats, Numbers

ROUNDS_MAX = 12


class Draws(Protocol):
    """Where numbers within 0..1 come from: chance, or anything that is as evenly spread."""

    def random(self) -> float:
        """Return the next."""


def group(vectors: Floats, count: int, draws: Draws) -> tuple[Floats, Numbers]:
    """Return at most `count` centres, and for each vector the number of its own."""
    centres = _seeds(vectors, min(count, len(vectors)), draws)
    nearest = _nearest(vectors, centres)
    for _ in range(ROUNDS_MAX):
        centres = _moved(centres, vectors, nearest)
        before, nearest = nearest, _nearest(vectors, centres)
        if np.array_equal(before, nearest):
            break
    return centres, nearest


def _nearest(vectors: Floats, centres: Floats) -> Numbers:
    """Return the nearest centre of each vector; its own length counts alike for all centres."""
    return np.asarray(((centres**2).sum(axis=1) / 2.0 - vectors @ centres.T).argmin(axis=1))


def _moved(centres: Floats, vectors: Floats, nearest: Numbers) -> Floats:
    """Return centres in the middle of their vectors; those that have none stay."""
    members = np.zeros((len(centres), len(vectors)))
    members[nearest, np.arange(len(vectors))] = 1.0
    sizes = members.sum(axis=1, keepdims=True)
    # A product, for np.add.at takes a hundred times as long.
    return np.where(sizes > 0, members @ vectors / np.maximum(sizes, 1.0), centres)


def _seeds(vectors: Floats, count: int, draws: Draws) -> Floats:
    """Draw centres among the vectors, each by its squared distance to those drawn before."""
    squares = (vectors**2).sum(axis=1)

    def distances(place: int) -> Floats:
        apart = squares + squares[place] - 2.0 * (vectors @ vectors[place])
        return np.asarray(np.maximum(apart, 0.0))

    drawn = [int(draws.random() * len(vectors))]
    apart = distances(drawn[0])
    while len(drawn) < count and apart.sum() > 0:
        sums = apart.cumsum()
        place = int(np.searchsorted(sums, draws.random() * sums[-1], side="right"))
        drawn.append(min(place, len(vectors) - 1))
        apart = np.minimum(apart, distances(drawn[-1]))
    return np.array(vectors[drawn], dtype=np.float64)
