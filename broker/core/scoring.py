"""How well each eligible endpoint suits a call: parts within 0..1, and their weighted mean.

quality       what is declared for the asked domain, else in general
domain fit    1 claims the domain, 0.5 a generalist, 0 another specialist;
              where no domain is asked for: 1 a generalist, 0.5 a specialist
cost          cheapest expected cost / own expected cost
latency       shortest expected latency / own expected latency
availability  moving average of outcomes x free share of the capacity

A caller who says what a good answer is worth gets another score in place of the mean, which is in
units of that value: `U = quality * availability - cost / value - 0.1 * [latency / 10 s - 1]+`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from broker.core.columns import Floats
from broker.core.requirements import Weights
from broker.core.view import View

LATENCY_OBJECTIVE_MS = 10_000.0
LATENESS_PRICE = 0.1
"""Taking twice as long as that costs so much of a good answer's value."""
NEAR_BEST = 0.03
"""The first place is drawn among those whose scores are no further from the best."""
PARTS = ("quality", "domain_fit", "cost", "latency", "availability")


def score_parts(view: View, parts: Floats) -> None:
    """Fill `parts`, of shape (5, endpoints of the view), rows as in PARTS."""
    if not view.numbers.size:
        return
    cost, latency = view.cost_picos, view.latency_ms
    parts[0] = view.quality
    parts[1] = view.domain_fit
    np.divide(cost.item(cost.argmin()), cost, out=parts[2])
    np.divide(latency.item(latency.argmin()), latency, out=parts[3])
    free = np.subtract(1.25, view.load, out=parts[4])
    np.minimum(free, 1.0, out=free)
    if view.fullest > 1.2:
        np.maximum(free, 0.05, out=free)
    free *= view.availability


def weigh(asked: Weights, parts: Floats, scores: Floats) -> None:
    """Fill `scores` with the weighted mean of the parts; all 0 where all weights are 0."""
    normal(asked).dot(parts, out=scores)  # half the time of np.matmul


def worth(view: View, parts: Floats, value_picos: float, scores: Floats) -> None:
    """Fill `scores` with what each endpoint's answer is worth, less what it costs, over the value.

    Below -1, where nobody would pay for it, scores come ever closer to -2.
    """
    np.multiply(parts[0], parts[4], out=scores)
    scores -= view.cost_picos / value_picos
    late = view.latency_ms / LATENCY_OBJECTIVE_MS - 1.0
    scores -= LATENESS_PRICE * np.maximum(late, 0.0)
    hopeless = scores < -1.0
    scores[hopeless] = -2.0 - 1.0 / scores[hopeless]


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
