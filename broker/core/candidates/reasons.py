"""Says in words why an endpoint was not eligible, for callers and for the console alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from broker.core.candidates.eligibility import Rejection

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


def counted(reasons: Iterable[int]) -> str:
    """Return what they fell to and how many to each, in words, the most first."""
    counts = Counter(map(Rejection, reasons))
    return ", ".join(f"{WORDS[reason]} ({count})" for reason, count in counts.most_common())
