"""Says in words why an endpoint was not eligible, for callers and for the console alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from broker.core.candidates.eligibility import Rejection
from broker.core.columns import Numbers

WORDS: Final[Mapping[Rejection, str]] = {
    Rejection.NOT_PRESENT: "draining or away",
    Rejection.UNPRICED: "no price yet",
    Rejection.PROVIDER_EXCLUDED: "provider excluded by the caller",
    Rejection.VERSION: "another version",
    Rejection.REGION: "outside the asked region",
    Rejection.RETAINS_DATA: "retains data",
    Rejection.TRAINS_ON_DATA: "trains on data",
    Rejection.QUALITY_TOO_LOW: "quality below the minimum",
    Rejection.RATE_TOO_HIGH: "price above max_price",
    Rejection.CONTEXT_TOO_SHORT: "context too short",
    Rejection.OUTPUT_TOO_SHORT: "output limit too low",
    Rejection.COST_TOO_HIGH: "cost above max_cost",
    Rejection.TOO_SLOW: "too slow",
    Rejection.EJECTED: "ejected after failures",
    Rejection.FULL: "full",
    Rejection.MODEL_NOT_ALLOWED: "not allowed to this key",
    Rejection.DOMAIN_NOT_ALLOWED: "a domain that is not allowed to this key",
    Rejection.TIER_UNPRICED: "no price for this tier",
}


def tally(reasons: Numbers) -> dict[Rejection, int]:
    """Return how many were rejected for each reason."""
    counts = np.bincount(reasons)
    return {Rejection(each): int(counts[each]) for each in counts.nonzero()[0].tolist()}


def counted(reasons: Numbers) -> str:
    """Return what they fell to and how many to each, in words, the most first."""
    most_first = sorted(tally(reasons).items(), key=lambda each: -each[1])
    return ", ".join(f"{WORDS[reason]} ({count})" for reason, count in most_first)
