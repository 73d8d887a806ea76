"""Tiers of service: the same endpoint at several prices, for callers who can wait or cannot.

    rate of a tier = rate * factor, rounded up, within the band that the provider declared

Callers sort themselves by what waiting costs them, which is price discrimination of the second
degree (Mussa & Rosen, "Monopoly and product quality", Journal of Economic Theory 18, 1978; for
queues, Mendelson & Whang, "Optimal incentive-compatible priority pricing for the M/M/1 queue",
Operations Research 38, 1990). A tier that an endpoint gives no factor has no price there, and what
has no price is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from pricing.book import Rate

BPS = 10_000
"""A factor of one, in basis points."""
FACTOR_BPS_MAX = 100 * BPS


class Tier(enum.StrEnum):
    """How a call is to be served."""

    STANDARD = "standard"
    PRIORITY = "priority"
    """Dearer; the last to be refused."""
    FLEX = "flex"
    """Cheaper; served where there is room to spare, else refused."""
    BATCH = "batch"
    """For work that can wait until tomorrow; served like flex."""

    @property
    def yields(self) -> bool:
        """True when it must leave room to the tiers that pay more."""
        return self in (Tier.FLEX, Tier.BATCH)


STANDARD: Final = Tier.STANDARD
"""The same: Python 3.11 finds a member of an enum in a third of a microsecond, a global in none."""


class FactorMalformed(ValueError):
    """A tier's factor that is not what the tier is for."""


Factors = Mapping[Tier, int]
"""Basis points by tier, without the standard tier, whose factor is one."""


def check_factor(tier: Tier, factor_bps: int) -> None:
    """Raises FactorMalformed unless priority is no cheaper, and flex and batch no dearer."""
    if tier is Tier.STANDARD:
        raise FactorMalformed("the standard tier has no factor: it is the price itself")
    if not 0 < factor_bps <= FACTOR_BPS_MAX:
        raise FactorMalformed(f"a factor is above 0 and at most {FACTOR_BPS_MAX // BPS}")
    if tier.yields and factor_bps > BPS:
        raise FactorMalformed(f"the tier {tier} must not be dearer than the standard tier")
    if tier is Tier.PRIORITY and factor_bps < BPS:
        raise FactorMalformed("the tier priority must not be cheaper than the standard tier")


def tier_rate(rate: Rate, factor_bps: int, floor: Rate, ceiling: Rate) -> Rate:
    """The rate of a tier whose factor is known; what is free stays free."""
    return Rate(
        _times(rate.rate_in_micros, factor_bps, floor.rate_in_micros, ceiling.rate_in_micros),
        _times(rate.rate_out_micros, factor_bps, floor.rate_out_micros, ceiling.rate_out_micros),
        _times(rate.rate_call_nanos, factor_bps, floor.rate_call_nanos, ceiling.rate_call_nanos),
    )


def _times(rate: int, factor_bps: int, floor: int, ceiling: int) -> int:
    return min(max(-(-rate * factor_bps // BPS), floor), ceiling)
