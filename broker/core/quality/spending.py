"""Replays a budget: calls one after another, paid from what is left, at prices that may jump."""

from __future__ import annotations

import msgspec
import numpy as np

from broker.core.columns import Floats
from broker.core.quality.frontier import upper_hull
from broker.core.quality.worth import Pacer

_ROUNDING = 1e-9


class Spent(msgspec.Struct, frozen=True):
    """How a budget was spent. `best_fixed_mix` is the reward of the best random mix of single
    models that costs as much; `shifted` the model whose price rose half-way; `least_usd` what the
    cheapest model alone costs while prices are highest, below which a budget is not `possible`: who
    spends evenly, and is not told what will be, has too little left for the second half."""

    budget_usd: float
    spent_usd: float
    spent_over_budget: float
    reward: float
    best_fixed_mix: float
    shifted: str | None
    least_usd: float
    possible: bool


def replay_budget(
    budget_usd: float,
    seen: tuple[Floats, Floats],
    expected: tuple[Floats, Floats],
    actual: tuple[Floats, Floats],
    shift: tuple[Floats, str | None],
) -> Spent:
    """Spend `budget_usd` a call.

    `seen` and `expected` are (scores, costs) as expected for calls of before, and for those to be
    made; `actual` what is got and paid; `shift` the factors of the prices in the second half.
    """
    calls = len(expected[0])
    pacer = Pacer(budget_usd * calls, calls)
    pacer.warm(*seen)
    scores, costs = actual[0], actual[1].copy()
    costs[calls // 2 :] *= shift[0]
    spent = reward = 0.0
    for call in range(calls):
        prices = shift[0] if call >= calls // 2 else np.ones_like(shift[0])
        chosen = pacer.choose(expected[0][call], expected[1][call], prices)
        pacer.pay(float(costs[call, chosen]))
        spent += float(costs[call, chosen])
        reward += float(scores[call, chosen])
    singles = costs.mean(axis=0)
    usual = actual[1].mean(axis=0)
    least = float(max(usual.min(), (usual * shift[0]).min()))
    hull = upper_hull(singles, scores.mean(axis=0))
    return Spent(
        budget_usd,
        spent / calls,
        spent / calls / budget_usd - 1.0,
        reward / calls,
        float(np.interp(spent / calls, hull[0], hull[1])),
        shift[1],
        least,
        budget_usd >= least * (1.0 - _ROUNDING),
    )
