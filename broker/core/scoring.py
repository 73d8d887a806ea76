"""How well each eligible endpoint suits a call: parts within 0..1, and their weighted mean.

quality       what is declared for the asked domain, else in general
domain fit    1 claims the domain, 0.5 a generalist, 0 another specialist
cost          cheapest expected cost / own expected cost
latency       shortest expected latency / own expected latency
availability  moving average of outcomes x free share of the capacity
"""

from __future__ import annotations

import numpy as np

from broker.core.market import Floats, Numbers
from broker.core.requirements import Weights
from broker.core.view import View

PARTS = ("quality", "domain_fit", "cost", "latency", "availability")


def score_parts(view: View, eligible: Numbers) -> Floats:
    """Return an array of shape (5, eligible), rows as in PARTS."""
    parts = np.empty((len(PARTS), eligible.size))
    if not eligible.size:
        return parts
    cost = view.cost_picos[eligible]
    latency = view.latency_ms[eligible]
    specialist = view.group.specialist[eligible]
    parts[0] = view.quality[eligible]
    if view.claims is None:
        # No domain is known, so the generalist is the safer choice.
        parts[1] = np.where(specialist, 0.5, 1.0)
    else:
        parts[1] = np.where(view.claims[eligible], 1.0, np.where(specialist, 0.0, 0.5))
    parts[2] = cost.min() / cost
    parts[3] = latency.min() / latency
    parts[4] = view.availability[eligible] * np.clip(1.25 - view.load[eligible], 0.05, 1.0)
    return parts


def weigh(asked: Weights, parts: Floats) -> Floats:
    """Return the weighted mean of the parts; weights that are all 0 score everything 0."""
    weights = np.array(
        [asked.quality, asked.domain_fit, asked.cost, asked.latency, asked.availability]
    )
    total = weights.sum()
    return np.asarray((weights / total if total else weights) @ parts)
