"""Which endpoint to try, so that more is learned of those that may be better than they seem.

Thompson sampling: each is taken as often as it is the best of what is drawn from what is known of
each (Thompson, "On the Likelihood that One Unknown Probability Exceeds Another", 1933; Chapelle and
Li, "An Empirical Evaluation of Thompson Sampling", 2011), and FLOOR of the calls go to all alike.
The shares come from a number of draws, and the choice is drawn from the shares: so they are
the very chances by which it was made, as learning from logs wants them
(`broker.core.quality.off_policy`).
"""

from __future__ import annotations

import math
from bisect import bisect
from functools import lru_cache
from itertools import accumulate
from random import Random
from typing import Final

import numpy as np

from broker.core.columns import Bools, Floats

FLOOR: Final = 0.02
DRAWS: Final = 256
CONSIDERED_MAX: Final = 16
"""Of more, those that may be best are considered."""
QUALITY_SHARE_MIN: Final = 0.8
"""Nobody is tried whose expected quality is less than so much of the best's."""
_VARIANCE_MIN: Final = 0.05
_EDGE: Final = 1e-9


def spread_of(quality: Floats, weight: Floats) -> Floats:
    """Return the deviation of what is known of each quality, from so many answers' `weight`."""
    variance = np.maximum(quality * (1.0 - quality), _VARIANCE_MIN)
    return np.asarray(np.sqrt(variance / (weight + 2.0)))


def good_enough(quality: Floats, quality_min: float | None) -> Bools:
    """Say which may be tried at all: the best, and who meets the caller's demand and is expected to
    be nearly as good as the best."""
    best = float(quality.max())
    able = quality >= QUALITY_SHARE_MIN * best
    if quality_min is not None:
        able &= quality >= quality_min
    return np.asarray(able | (quality == best))


def propensities(scores: Floats, spread: Floats, able: Bools, random: Random) -> Floats:
    """Return the chance of each to be chosen; `spread` is the deviation of each score."""
    places = np.flatnonzero(able)
    if places.size > CONSIDERED_MAX:
        hopeful = scores[places] + 2.0 * spread[places]
        places = places[np.argsort(-hopeful, kind="stable")[:CONSIDERED_MAX]]
    chances = np.zeros(scores.size)
    best = (scores[places] + _drawn(places.size, random) * spread[places]).argmax(axis=1)
    chances[places] = (1.0 - FLOOR) * np.bincount(best, minlength=places.size) / DRAWS
    chances[places] += FLOOR / places.size
    return chances


def _drawn(count: int, random: Random) -> Floats:
    """Return DRAWS draws of each of so many, of mean 0 and deviation 1, from a bell that numpy can
    invert: the logistic one. They are spread evenly, and moved together by chance."""
    even = (_spread_evenly()[:, :count] + [random.random() for _ in range(count)]) % 1.0
    even = np.clip(even, _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(even / (1.0 - even)) * (math.sqrt(3.0) / math.pi))


@lru_cache(maxsize=1)
def _spread_evenly() -> Floats:
    """Return points in the unit cube: Roberts' sequence, multiples of powers of an irrational."""
    root = 1.0
    for _ in range(60):
        root = (1.0 + root) ** (1.0 / (CONSIDERED_MAX + 1))
    steps = root ** -np.arange(1.0, CONSIDERED_MAX + 1)
    return np.asarray(np.arange(1.0, DRAWS + 1)[:, None] * steps % 1.0)


def draw(chances: Floats, random: Random) -> int:
    """Draw a place by its chance."""
    sums = list(accumulate(chances.tolist()))
    return bisect(sums, random.random() * sums[-1], 0, len(sums) - 1)
