"""What a router gets for its money: accuracy against cost, in the measures that papers use.

AIQ: Hu et al., "RouterBench", 2024; APGR and CPT: Ong et al., "RouteLLM", 2024; the arena score:
Lu et al., "RouterArena", 2025, with beta 0.1 and costs per thousand calls of 0.0044 to 200 USD.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from broker.core.columns import Floats, Numbers

ARENA_BETA = 0.1
ARENA_COSTS_USD = (0.0044, 200.0)
"""Per thousand calls."""
_POINTS = 201
_SAME = 1e-9
"""So far two means of the same scores may be apart by rounding alone, and costs in proportion."""


class Measures(msgspec.Struct, frozen=True):
    """None where a share or threshold is never reached, and the `apgr` where the best single is no
    better than the cheapest, so that there is no way from one to the other. Costs are USD a call.
    """

    accuracy_max_quality: float
    cost_max_quality_usd: float
    best_single_accuracy: float
    best_single_cost_usd: float
    cheapest_accuracy: float
    oracle_accuracy: float
    gap_to_oracle: float
    cost_saved_at_best_single: float | None
    random_at_equal_cost: float
    """Of a random mix of cheapest and best single that costs what the router costs at its best."""
    aiq: float
    apgr: float | None
    cpt_50: float | None
    cpt_80: float | None
    routerarena: float


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """Choices of a router at several prices of money, and what each model would have got."""

    choices: Numbers
    """(prices, calls); the first row is at price 0: quality alone."""
    scores: Floats
    """(calls, models)"""
    costs_usd: Floats
    """(calls, models)"""
    best: int
    """The best single model."""
    cheapest: int
    got: Floats
    """(prices, calls)"""
    paid_usd: Floats
    """(prices, calls)"""

    def points(self, calls: Numbers) -> tuple[Floats, Floats]:
        """Return (costs, accuracies) over some calls, by price."""
        share = np.bincount(calls, minlength=self.got.shape[1]) / max(calls.size, 1)
        return np.asarray(self.paid_usd @ share), np.asarray(self.got @ share)


def replay_of(
    choices: Numbers, scores: Floats, costs_usd: Floats, best: int, cheapest: int
) -> Replay:
    """Return what one choice for each call got and cost, by price."""
    calls = np.arange(len(scores))
    got, paid = scores[calls, choices], costs_usd[calls, choices]
    return Replay(choices, scores, costs_usd, best, cheapest, got, paid)


def measure(replay: Replay, calls: Numbers) -> Measures:
    """Measure over some calls, by their places; a place may come twice, as in a bootstrap."""
    costs, accuracies = replay.points(calls)
    scores, prices = replay.scores[calls], replay.costs_usd[calls]
    singles, single_costs = scores.mean(axis=0), prices.mean(axis=0)
    best, best_cost = float(singles[replay.best]), float(single_costs[replay.best])
    weak, weak_cost = float(singles[replay.cheapest]), float(single_costs[replay.cheapest])
    oracle = float(scores.max(axis=1).mean())
    share, way = np.linspace(0.0, 1.0, _POINTS), best - weak
    gained = reached(costs, accuracies, weak_cost + share * (best_cost - weak_cost)) - weak
    whole = np.linspace(single_costs.min(), single_costs.max(), _POINTS)
    mixed = np.clip((costs[0] - weak_cost) / (best_cost - weak_cost or 1.0), 0.0, 1.0)
    return Measures(
        accuracy_max_quality=float(accuracies[0]),
        cost_max_quality_usd=float(costs[0]),
        best_single_accuracy=best,
        best_single_cost_usd=best_cost,
        cheapest_accuracy=weak,
        oracle_accuracy=oracle,
        gap_to_oracle=oracle - float(accuracies[0]),
        cost_saved_at_best_single=_saved(costs[accuracies >= best - _SAME], best_cost),
        random_at_equal_cost=float(weak + mixed * (best - weak)),
        aiq=float(reached(costs, accuracies, whole).mean()),
        apgr=float(gained.mean() / way) if way > _SAME else None,
        cpt_50=_first(share, gained >= 0.5 * way - _SAME),
        cpt_80=_first(share, gained >= 0.8 * way - _SAME),
        routerarena=float(arena(accuracies, costs).max()),
    )


def _saved(costs: Floats, best_cost: float) -> float | None:
    """Return which share of a cost the least saves; of what is free nothing can be saved."""
    if not costs.size:
        return None
    saved = float(1.0 - costs.min() / best_cost) if best_cost > 0.0 else 0.0
    return saved if abs(saved) > _SAME else 0.0


def reached(costs: Floats, accuracies: Floats, budgets: Floats) -> Floats:
    """Return the best accuracy within each budget, mixing neighbours on the upper hull."""
    hull = upper_hull(costs, accuracies)
    return np.asarray(np.interp(budgets, hull[0], hull[1]))


def upper_hull(costs: Floats, gains: Floats) -> tuple[Floats, Floats]:
    """Return the corners of the least concave curve above all points that does not fall."""
    order = np.lexsort((-gains, costs))
    corners: list[tuple[float, float]] = []
    for cost, gain in zip(costs[order].tolist(), gains[order].tolist(), strict=True):
        if corners and gain <= corners[-1][1]:
            continue
        while len(corners) >= 2 and _below(corners[-2], corners[-1], (cost, gain)):
            corners.pop()
        corners.append((cost, gain))
    return np.array([each[0] for each in corners]), np.array([each[1] for each in corners])


def _below(
    first: tuple[float, float], middle: tuple[float, float], last: tuple[float, float]
) -> bool:
    return (middle[1] - first[1]) * (last[0] - first[0]) <= (last[1] - first[1]) * (
        middle[0] - first[0]
    )


def arena(accuracies: Floats, costs_usd: Floats) -> Floats:
    """Return the RouterArena score of each point; costs are USD a call."""
    low, high = np.log2(ARENA_COSTS_USD)
    cheap = (high - np.log2(np.maximum(costs_usd * 1_000.0, 1e-12))) / (high - low)
    cheap = np.clip(cheap, 1e-9, 1.0)
    weighed = (1.0 + ARENA_BETA) * accuracies * cheap
    return np.asarray(weighed / (ARENA_BETA * accuracies + cheap))


def _first(share: Floats, enough: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float | None:
    return float(share[enough.argmax()]) if enough.any() else None
