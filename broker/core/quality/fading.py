"""How much evidence weighs still: it fades with age, and all at once where its model got worse.

That it got worse is told by one-sided CUSUM on what its scores fall short of what they were before
(Page, "Continuous Inspection Schemes", 1954).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from broker.core.columns import Floats, Numbers

HALF_LIFE_S: Final = 30 * 86_400.0
"""Evidence of this age weighs half."""
SLACK: Final = 0.1
"""To fall short by so much is chance."""
ALARM: Final = 8.0
"""To fall short by so much in sum, beyond the slack, is not. A fall by 0.3 is found in 40
answers."""
ALARM_FOR: Final = 200
"""By chance that is seldom in so many answers. In a longer stream it takes more, for there are more
places from which to fall short: the logarithm of how many times as many, over RARER."""
RARER: Final = 0.8
"""At even odds a sum larger by 1 is exp(-0.8) times as likely: the root of
cosh(x / 2) = exp(SLACK * x)."""
VOICE_MAX: Final = ALARM / 2
"""So much weighs at most what one account says of an endpoint, where the others' is at stake: alone
it sounds no alarm, and hardly moves what is expected."""
SAID_MAX: Final = 2 * VOICE_MAX
"""So much weighs at most what one account says of an endpoint in what is learned of it for all:
less than what its provider declares, and than what a suite finds."""
OUTDATED: Final = 0.1
"""What evidence of before the change still weighs."""


def faded(ages_s: Floats) -> Floats:
    """Return what evidence of these ages weighs."""
    return np.asarray(0.5 ** (np.maximum(ages_s, 0.0) / HALF_LIFE_S))


def changed_at(short: Floats) -> int:
    """Return the place from which on scores fell short for good, 0 where they never did.

    `short` is what was expected less what came, in the order of time.
    """
    sums = np.concatenate(([0.0], (short - SLACK).cumsum()))
    alarm = ALARM + math.log(max(short.size / ALARM_FOR, 1.0)) / RARER
    alarms = np.flatnonzero(sums - np.minimum.accumulate(sums) > alarm)
    return int(sums[: alarms[-1] + 1].argmin()) if alarms.size else 0


def expected_before(
    scores: Floats, weights: Floats, cells: Numbers, prior: Floats, declared: float
) -> Floats:
    """Return what each score was expected to be: the mean of those before it in its cell, by their
    weights, and its `prior`, which weighs `declared`. All are in the order of time."""
    if not scores.size:
        return np.zeros(0)
    order = np.argsort(cells, kind="stable")
    sorted_cells = cells[order]
    begins = np.concatenate(([True], sorted_cells[1:] != sorted_cells[:-1]))
    first = np.maximum.accumulate(np.where(begins, np.arange(scores.size), 0))
    told, good = (_sum_before(each[order], first) for each in (weights, weights * scores))
    expected = np.empty(scores.size)
    expected[order] = (good + declared * prior[order]) / (told + declared)
    return expected


def capped(weights: Floats, voices: Numbers, most: float) -> Floats:
    """Return weights of which no voice has more than `most` together."""
    if not weights.size:
        return weights
    _, own = np.unique(voices, return_inverse=True)
    totals = np.bincount(own, weights)[own]
    return np.asarray(weights * (most / np.maximum(totals, most)))


def _sum_before(values: Floats, first: Numbers) -> Floats:
    """Sum the values before each, from the first of its cell on."""
    sums = np.concatenate(([0.0], values.cumsum()))[:-1]
    return np.asarray(sums - sums[first])
