"""Why a call goes nowhere, in one word, of the many reasons that its endpoints were rejected for.

That an endpoint is full is asked last, and that it is ejected next to last: such an endpoint fits
in all else. So one that is full makes the call demand that found no room, whatever the others lack.
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from broker.core.candidates.eligibility import Rejection


class Cause(enum.Enum):
    """What stood in the way."""

    FULL = enum.auto()
    """Who fits is full, and may not be in a moment."""
    AWAY = enum.auto()
    """Who may fit is not there at the moment."""
    TIER = enum.auto()
    """Nobody has a price for the tier."""
    PRICE = enum.auto()
    """It costs more than the caller would pay."""
    TERMS = enum.auto()
    """Nobody has what is asked for."""


PRICED_OUT = frozenset({Rejection.RATE_TOO_HIGH, Rejection.COST_TOO_HIGH})
_PASSING = frozenset({Rejection.EJECTED, Rejection.NOT_PRESENT})


def cause_of(reasons: Collection[int]) -> Cause:
    """Return the cause; `reasons` are the Rejections of all who were considered."""
    told = frozenset(reasons)
    if Rejection.FULL in told:
        return Cause.FULL
    if told == {Rejection.TIER_UNPRICED}:
        return Cause.TIER
    # Who does not price the tier at all does not keep the others from being merely away.
    if Rejection.EJECTED in told or told - {Rejection.TIER_UNPRICED} <= _PASSING:
        return Cause.AWAY
    return Cause.PRICE if told & PRICED_OUT else Cause.TERMS
