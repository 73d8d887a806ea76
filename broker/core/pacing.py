"""The price of money under which a budget is spent evenly: lambda <- [lambda + eta (c / B - 1)]+.

`c` is what is spent in a second, a moving mean, and `B` what is left of the budget over what is
left of its time: who has spent too much is to spend less, until both agree. Lambda is kept as score
per cost of a usual call, so that one eta suits all budgets (Balseiro and Gur, "Learning in Repeated
Auctions with Budgets", 2019; its use for choosing models: "ParetoBandit", 2026).
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

STEP_PER_S: Final = 0.02 / 60.0
"""Eta, for a second: spending twice too much for an hour makes the cost of a usual call weigh as
much as a whole answer."""
SMOOTHING_S: Final = 600.0
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
    """Nano-dollars a second, lately."""
    usual_nanos: float = 0.0
    """What a usual call is expected to cost, 0 before any; the mean of who could have served it."""

    def stepped(self, spent_nanos: int, limit_nanos: int, left_s: float, now_s: float) -> Pace:
        """Return the pace a while later, with so much spent of a budget that is to last for so
        long; who has spent less than before is in a new period."""
        passed_s = min(max(now_s - self.at_s, 0.0), SILENCE_S_MAX)
        if not passed_s:
            return self
        new = spent_nanos - self.spent_nanos if spent_nanos >= self.spent_nanos else spent_nanos
        share = 1.0 - math.exp(-passed_s / SMOOTHING_S)
        rate = self.rate + share * (new / max(now_s - self.at_s, 1.0) - self.rate)
        even = (limit_nanos - spent_nanos) / max(left_s, _LEFT_S_MIN)
        ratio = min(rate / even, RATIO_MAX) if even > 0.0 else RATIO_MAX
        price = self.price + STEP_PER_S * passed_s * (ratio - 1.0)
        return msgspec.structs.replace(
            self,
            at_s=now_s,
            spent_nanos=spent_nanos,
            price=min(max(price, 0.0), PRICE_MAX),
            rate=rate,
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
