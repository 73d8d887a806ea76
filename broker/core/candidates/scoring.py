"""How well each eligible endpoint suits a call: parts within 0..1, and their weighted mean.

quality       what is declared for the asked domain, else in general
domain fit    1 claims the domain, 0.5 a generalist, 0 another specialist;
              where no domain is asked for: 1 a generalist, 0.5 a specialist
cost          cheapest expected cost / own expected cost
latency       shortest expected latency / own, neither less than UNNOTICED_MS
availability  moving average of outcomes x free share of the capacity

Where a good answer has a worth, as its caller says, a budget or a preset, the score is another, in
units of that worth: `U = q * available + bonus - cost / worth - mu * [latency / wanted - 1]+`.
The bonus is for the domain that is claimed, as far as that is all that is known.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from broker.core.candidates.view import View
from broker.core.columns import Floats
from broker.core.market import Shortlist
from broker.core.requirements import Requirements, Taste, Weights

LATENCY_OBJECTIVE_MS = 10_000.0
UNNOTICED_MS = 50.0
"""Latencies up to that count as equal: nobody notices them, nor can they be told apart. An answer
of 256 tokens is off by half as much where each seems to take a tenth of a millisecond more; and who
was never asked, of whom less is expected, counts as no later than who is measured to be quick."""
LATENESS_PRICE = 0.1
"""Taking twice as long as that costs so much of a good answer's value."""
CLAIM_BONUS = 0.1
"""To be a specialist, and not one of another domain, counts as so much quality until more is known
than the claim."""
NEAR_BEST = 0.03
"""The first place is drawn among those whose scores are no further from the best;"""
AS_GOOD = 0.01
"""where an answer has a worth, among those of them that are expected to be no worse by more,"""
AS_CHEAP = 1.03
"""and to cost no more than so many times as much. Else a caller who cares little for money would
often get a worse answer for nothing, and who pays little for his answers one for twice as much."""
PARTS = ("quality", "domain_fit", "cost", "latency", "availability")


def score_parts(view: View, parts: Floats) -> None:
    """Fill `parts`, of shape (5, endpoints of the view, at least one), rows as in PARTS."""
    cost, latency = view.cost_picos, view.latency_ms
    parts[0] = view.quality
    parts[1] = view.domain_fit
    np.divide(cost.item(cost.argmin()), cost, out=parts[2])
    score_latency(latency.item(latency.argmin()), latency, parts[3])
    free = np.subtract(1.25, view.load, out=parts[4])
    np.minimum(free, 1.0, out=free)
    if view.fullest > 1.2:
        np.maximum(free, 0.05, out=free)
    free *= view.availability


def score_latency(soonest_ms: float, latency_ms: Floats, part: Floats) -> None:
    """Fill `part` with the part of a score that goes by latency, where so long is the shortest."""
    np.divide(max(soonest_ms, UNNOTICED_MS), latency_ms, out=part)
    np.minimum(part, 1.0, out=part)


def weigh(asked: Weights, parts: Floats, scores: Floats) -> None:
    """Fill `scores` with the weighted mean of the parts; all 0 where all weights are 0."""
    normal(asked).dot(parts, out=scores)  # half the time of np.matmul


def worth(view: View, figures: Floats, value_picos: float, taste: Taste | None) -> None:
    """Fill the first row of `figures` with what each endpoint's answer is worth, less what it
    costs, over the value; the others are the parts, the expected costs, and one to be written on.

    Below -1, where nobody would pay for it, scores come ever closer to -2.
    """
    scores, latency = figures[0], view.latency_ms
    bonus, lateness = (0.0, LATENESS_PRICE) if taste is None else (CLAIM_BONUS, taste.lateness)
    np.multiply(figures[1], figures[5], out=figures[-1])
    # One product with all rows, for each sum of two arrays takes as long.
    np.array((0.0, bonus, 0.0, 0.0, 0.0, -1.0 / value_picos, 1.0)).dot(figures[1:], out=scores)
    if taste is not None and taste.hurried:
        scores -= lateness * (1.0 / figures[4] - 1.0)
    elif latency.item(latency.argmax()) > LATENCY_OBJECTIVE_MS:
        late = latency / LATENCY_OBJECTIVE_MS - 1.0
        scores -= lateness * np.maximum(late, 0.0)
    if scores.item(scores.argmin()) < -1.0:
        hopeless = scores < -1.0
        scores[hopeless] = -2.0 - 1.0 / scores[hopeless]


def typical_picos(wanted: Requirements, listed: Shortlist, tokens_out: float) -> float:
    """Return what a call of so many tokens out costs at the shortlist's middle rates."""
    rate_in, rate_out, rate_call = listed.typical
    return rate_in * wanted.tokens_in_expected + rate_out * wanted.choices * tokens_out + rate_call


def free_share(load: float) -> float:
    """Return the free share of a capacity as it counts in a score, of one endpoint."""
    return max(min(1.25 - load, 1.0), 0.05)


@lru_cache(maxsize=256)
def normal(asked: Weights) -> Floats:
    """Return the weights scaled to a sum of 1, in the order of PARTS; all 0 stay 0."""
    weights = np.array(
        [asked.quality, asked.domain_fit, asked.cost, asked.latency, asked.availability]
    )
    total = weights.sum()
    return np.asarray(weights / total if total else weights)
