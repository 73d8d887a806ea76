"""What another way of choosing would have got, from calls that were logged with their chances.

    IPS    v = mean(w r)                      unbiased, and wide
    SNIPS  v = sum(w r) / sum(w)              a little biased, and narrower
    DR     v = mean(m + w (r - m_taken))      m: what a model of rewards expects

with `w` the chance of the taken under the other policy over its chance when it was taken (Horvitz
and Thompson, 1952; Swaminathan and Joachims, 2015; Dudik, Langford and Li, "Doubly Robust Policy
Evaluation and Learning", 2011). Intervals are normal, at 95 %.

Of what the other policy would choose and nobody could take nothing was seen: IPS counts it as worth
0, SNIPS as much as the rest, DR what its model expects. So the least and the most that it may be
worth stand beside them: SNIPS of the rest, with all that as worth 0, and as worth 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers

_Z: Final = 1.96
_PRIOR: Final = 5.0
"""The mean reward of all counts as so many of each endpoint's, in the model of rewards."""


class Estimate(msgspec.Struct, frozen=True):
    """A mean reward, and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float


class Evaluated(msgspec.Struct, frozen=True):
    """What came of it: `logged` is what was got; `effective` how many calls the weighted ones are
    worth; `supported` the share of the other policy's choices that had any chance to be taken;
    `partly_told` the share of calls that tell only some of who was eligible, of whom it may have
    chosen another; `least` and `most` what it is worth if all that was not supported got 0, or 1.
    """

    calls: int
    effective: float
    supported: float
    partly_told: float
    least: float
    most: float
    logged: Estimate
    ips: Estimate
    snips: Estimate
    dr: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """Calls; `chances` and `other` of shape (calls, arms), 0 for who was no candidate."""

    rewards: Floats
    taken: Numbers
    """The arm of each call."""
    chances: Floats
    """By which it was chosen."""
    other: Floats
    """By which the other policy would choose; less than 1 in all where it might choose others."""
    partly_told: float = 0.0


def evaluate(logged: Logged) -> Evaluated:
    """Estimate the other policy's mean reward. There must be a call, and each of the taken must
    have had a chance."""
    rows, rewards = np.arange(len(logged.rewards)), logged.rewards
    weights = logged.other[rows, logged.taken] / logged.chances[rows, logged.taken]
    expected = _expected(logged)
    by_model = (logged.other * expected).sum(axis=1)
    robust = by_model + weights * (rewards - expected[rows, logged.taken])
    total = weights.sum()
    normed = float((weights * rewards).sum() / total) if total else 0.0
    apart = weights * (rewards - normed) / weights.mean() if total else np.zeros(len(rows))
    supported = float((logged.other * (logged.chances > 0.0)).sum(axis=1).mean())
    return Evaluated(
        calls=len(rows),
        effective=float(total**2 / (weights**2).sum()) if total else 0.0,
        supported=supported,
        partly_told=logged.partly_told,
        least=supported * normed,
        most=supported * normed + 1.0 - supported,
        logged=_around(float(rewards.mean()), rewards),
        ips=_around(float((weights * rewards).mean()), weights * rewards),
        snips=_around(normed, apart),
        dr=_around(float(robust.mean()), robust),
    )


def _expected(logged: Logged) -> Floats:
    """Return each arm's mean reward, shrunk, at each call without that call's own."""
    calls, arms = logged.chances.shape
    own = np.zeros((calls, arms))
    own[np.arange(calls), logged.taken] = 1.0
    counts, sums = own.sum(axis=0) - own, logged.rewards @ own - own * logged.rewards[:, None]
    return np.asarray((sums + _PRIOR * logged.rewards.mean()) / (counts + _PRIOR))


def _around(value: float, each: Floats) -> Estimate:
    half = _Z * float(each.std()) / max(len(each), 1) ** 0.5
    return Estimate(value, value - half, value + half)
