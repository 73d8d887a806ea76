"""The price of money under which a budget is spent evenly: lambda <- [lambda + eta (c / B - 1)]+.

`c` is what is spent in a second, a moving mean, and `B` what is left of the budget over what is
left of its time: who has spent too much is to spend less, until both agree. Lambda is kept as score
per cost of a usual call, so that one eta suits all budgets (Balseiro and Gur, "Learning in Repeated
Auctions with Budgets", 2019; its use for choosing models: "ParetoBandit", 2026).

The mean is over a day, for most have more calls by day than by night, and eta is in proportion to
lambda, so that steps about a small one are small: a mean over minutes made money dear each morning
and cheap each night, and where nearly all could be afforded, what was not spent by day was never
spent. Only where both the last day and the last minutes cost twice too much are steps large.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

STEP: Final = 7.2
"""Eta, for as long as the mean is over, at a lambda of 1: spending twice too much for a day
multiplies a small one by a thousand."""
STEP_MIN: Final = 0.02
"""Of it, for a smaller lambda still."""
ALARM_STEP_PER_S: Final = 0.02 / 60.0
"""While far too much is spent: twice too much for an hour makes the cost of a usual call weigh as
much as a whole answer."""
ALARM: Final = 2.0
SMOOTHING_S: Final = 600.0
DAY_S: Final = 86_400.0
LANDING: Final = 6.0
"""Towards the end the mean is over this part of the time left, for nothing to be left over."""
RATIO_MAX: Final = 3.0
SILENCE_S_MAX: Final = 600.0
"""A longer time without calls counts as so much."""
PRICE_MAX: Final = 50.0
VALUE_NANOS_MAX: Final = 1_000_000_000_000
"""Where money has no price: a good answer is worth a thousand dollars, so that quality decides."""
_LEFT_S_MIN: Final = 60.0
_USUAL_SHARE: Final = 0.02


class Pace(msgspec.Struct, frozen=True):
    """How a budget is being spent. Times are seconds since 1970."""

    at_s: float
    spent_nanos: int
    price: float = 0.0
    """Lambda: score per cost of a usual call."""
    rate: float = 0.0
    """Nano-dollars a second, in the last minutes."""
    daily: float = 0.0
    """The same in the last day, as far as it is known; the rest counts as nothing."""
    known: float = 0.0
    """So much of the last day is known, 0 to 1."""
    usual_nanos: float = 0.0
    """What a usual call is expected to cost, 0 before any; the mean of who could have served it."""

    def stepped(self, spent_nanos: int, limit_nanos: int, left_s: float, now_s: float) -> Pace:
        """Return the pace a while later, with so much spent of a budget that is to last for so
        long; who has spent less than before is in a new period."""
        passed_s = now_s - self.at_s
        if passed_s <= 0.0:
            return self
        new = spent_nanos - self.spent_nanos if spent_nanos >= self.spent_nanos else spent_nanos
        per_s = new / max(passed_s, 1.0)
        span_s = min(max(left_s / LANDING, SMOOTHING_S), DAY_S)
        short, long = (1.0 - math.exp(-passed_s / each) for each in (SMOOTHING_S, span_s))
        rate, daily = (
            before + share * (per_s - before)
            for before, share in ((self.rate, short), (self.daily, long))
        )
        known = self.known + long * (1.0 - self.known)
        even = (limit_nanos - spent_nanos) / max(left_s, _LEFT_S_MIN)
        lately, ratio = (
            min(each / even, RATIO_MAX) if even > 0.0 else RATIO_MAX
            for each in (rate, daily / known)
        )
        counted_s = min(passed_s, SILENCE_S_MAX)
        if min(lately, ratio) >= ALARM:
            price = self.price + ALARM_STEP_PER_S * counted_s * (lately - 1.0)
        else:
            step = STEP * min(max(self.price, STEP_MIN), 1.0) / span_s
            price = self.price + step * counted_s * (ratio - 1.0)
        return msgspec.structs.replace(
            self,
            at_s=now_s,
            spent_nanos=spent_nanos,
            price=min(max(price, 0.0), PRICE_MAX),
            rate=rate,
            daily=daily,
            known=known,
        )

    def saw(self, cost_nanos: float) -> Pace:
        """Return the pace after a call that is expected to cost so much."""
        usual = self.usual_nanos
        usual = usual + _USUAL_SHARE * (cost_nanos - usual) if usual else cost_nanos
        return msgspec.structs.replace(self, usual_nanos=usual)

    @property
    def value_nanos(self) -> int:
        """What a good answer is worth at this price, in nano-dollars: 1 / lambda."""
        if self.price * VALUE_NANOS_MAX <= self.usual_nanos or not self.price:
            return VALUE_NANOS_MAX
        return min(max(round(self.usual_nanos / self.price), 1), VALUE_NANOS_MAX)
