"""What a choice is worth: U = q - lambda * E[cost]; and the pace at which a budget is spent.

`lambda` is score per dollar. The pacer is the dual ascent of budgeted bandits (Balseiro and Gur,
"Learning in Repeated Auctions with Budgets", 2019) with the step replaced by the solution on the
latest calls: what is left of the budget, spread over the calls left, is the mean that the choices
made under lambda for those calls would have cost.
"""

from __future__ import annotations

import numpy as np

from broker.core.columns import Floats, Numbers

WINDOW_CALLS = 600
SOLVE_EVERY_CALLS = 20
_HALVINGS = 32
_TINY = 1e-12


def choose(quality: Floats, costs_usd: Floats, price: float) -> Numbers:
    """Return the best model of each row at `price` score per dollar; of equals the cheapest."""
    worth = quality - price * costs_usd
    best = worth.max(axis=1, keepdims=True)
    return np.asarray(np.where(worth >= best - _TINY, costs_usd, np.inf).argmin(axis=1))


def price_for(quality: Floats, costs_usd: Floats, budget_usd: float) -> tuple[float, float]:
    """Return (low, high): neighbouring prices between which the mean cost passes the budget.

    (0, 0) where even the best costs no more. The arrays have a row for each model: numpy takes the
    best of few long rows ten times as fast as of many short ones.
    """

    def spent(price: float) -> float:
        worth = quality - price * costs_usd
        equals = worth >= worth.max(axis=0) - _TINY
        return float(np.where(equals, costs_usd, np.inf).min(axis=0).mean())

    if spent(0.0) <= budget_usd:
        return 0.0, 0.0
    least = costs_usd.min()
    low, high = 0.0, 1.0 / max(float(least), _TINY)
    while spent(high) > budget_usd and high < 1e15:
        high *= 10.0
    low = high * 1e-12
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if spent(middle) > budget_usd else (low, middle)
    return low, high


class Pacer:
    """Spends a budget evenly over a number of calls; knows vectors of numbers only."""

    def __init__(self, budget_usd: float, calls: int) -> None:
        self.left_usd = budget_usd
        self.calls_left = calls
        self.price = 0.0
        self._made = 0
        self._least_usd = 0.0
        """What the cheapest model for a call costs on average."""
        self._seen = 0
        self._quality = np.zeros((0, WINDOW_CALLS))
        self._volumes = np.zeros((0, WINDOW_CALLS))

    def warm(self, quality: Floats, volumes: Floats) -> None:
        """Begin with calls seen before, of which no cost counts."""
        for each, volume in zip(quality[-WINDOW_CALLS:], volumes[-WINDOW_CALLS:], strict=True):
            self._see(each, volume)

    def choose(self, quality: Floats, volumes: Floats, prices: Floats) -> int:
        """Return the model for a call: expected scores, expected volumes, and prices now.

        Expected cost is volume times price, so a change of prices holds for calls past as well.
        """
        self._see(quality, volumes)
        due = self._made % SOLVE_EVERY_CALLS == 0  # so at the very first call, too
        self._made += 1
        if due or self.calls_left < SOLVE_EVERY_CALLS:
            target = max(self.left_usd, 0.0) / max(self.calls_left, 1)
            seen = slice(min(self._seen, WINDOW_CALLS))
            known = self._volumes[:, seen] * prices[:, None]
            self.price = price_for(self._quality[:, seen], known, target)[1]
            self._least_usd = float(known.min(axis=0).mean())
        costs = volumes * prices
        able = np.where(costs <= self._most_usd(costs), quality, -np.inf)
        return int(choose(able[None, :], costs[None, :], self.price)[0])

    def _most_usd(self, costs: Floats) -> float:
        """Return what a call may cost: so much that the cheapest can be paid for all later ones."""
        least = float(costs.min())
        free = max(self.left_usd - self._least_usd * (self.calls_left - 1), least)
        dearest = float(costs[costs <= free].max())
        if self.calls_left * (dearest - least) < free - least:
            # Else much would be left: the last dear call may overdraw the budget by as much as
            # leaving it out would save.
            free *= 2.0
        return free

    def _see(self, quality: Floats, volumes: Floats) -> None:
        if not self._seen:
            self._quality = np.zeros((quality.size, WINDOW_CALLS))
            self._volumes = np.zeros((quality.size, WINDOW_CALLS))
        place = self._seen % WINDOW_CALLS
        self._quality[:, place], self._volumes[:, place] = quality, volumes
        self._seen += 1

    def pay(self, cost_usd: float) -> None:
        """Be told what the call has cost."""
        self.left_usd -= cost_usd
        self.calls_left -= 1
