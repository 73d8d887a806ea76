"""Works the measures out of a run.

    welfare  = worth of the answers - cost of serving       = consumers' + providers' + broker's
    consumers' surplus = worth - charges,  providers' = charges - take - cost,  broker's = take

Servers that cost by the hour cost the same under every policy and are left out of welfare; what
providers keep after them stands with each provider. Concentration: Hirschman 1945, Herfindahl 1950;
fairness: Jain, Chiu & Hawe, "A quantitative measure of fairness", DEC TR-301, 1984.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pricing.book import FloatArray, IntArray
from simulations.fluid.yardstick import Yardstick
from simulations.measured.excess import excess_load
from simulations.measured.record import Code, Histogram, Run
from simulations.measured.series import price_levels
from simulations.measured.settling import settling_s
from simulations.scenario import Scenario

_NANOS_PER_USD = 1e9
_HOUR_S = 3_600.0
_REFUSED = tuple(each for each in Code if each.refused)
_FAILED = tuple(each for each in Code if each.failed)


def figures(run: Run, scenario: Scenario, best: Yardstick) -> dict[str, float]:
    """Every measure of `simulations.measures` by key, NaN where there is nothing to measure.

    `best` is the most that could be made of the scenario. `scenario` is the one as it is written,
    over whose list prices prices are told.
    """
    return {
        **_welfare(run, best.welfare_usd(run.ended_s)),
        **_service(run, scenario),
        **_stability(run, scenario, best),
        **_market(run, scenario),
    }


@dataclass(frozen=True, slots=True)
class ProviderFigures:
    """What one provider made in the time that counts, in USD."""

    name: str
    sales_usd: float
    take_usd: float
    serving_usd: float
    servers_usd: float
    served: int
    utilisation: float

    @property
    def profit_usd(self) -> float:
        """After the broker's take, serving and servers."""
        return self.sales_usd - self.take_usd - self.serving_usd - self.servers_usd

    @property
    def break_even(self) -> float:
        """At which multiple of its sales it would make neither profit nor loss; NaN of none."""
        kept = self.sales_usd - self.take_usd
        return (self.serving_usd + self.servers_usd) / kept if kept > 0.0 else math.nan


def provider_figures(run: Run, scenario: Scenario) -> tuple[ProviderFigures, ...]:
    """What each provider made, in the scenario's order."""
    totals, slots = run.totals, _slots(run, scenario)

    def usd(array: FloatArray) -> FloatArray:
        return _by_provider(run, array) / _NANOS_PER_USD

    sales, take = usd(_by_endpoint(totals.charge_nanos)), usd(_by_endpoint(totals.take_nanos))
    serving, servers = usd(_by_endpoint(totals.cost_nanos)), usd(run.server_cost_nanos)
    served = _by_provider(run, _by_endpoint(totals.calls[:, :, Code.SERVED]))
    busy = _by_provider(run, np.nan_to_num(run.mean_utilisation) * slots)
    room = np.maximum(_by_provider(run, slots), 1e-9)
    return tuple(
        ProviderFigures(
            name,
            float(sales[place]),
            float(take[place]),
            float(serving[place]),
            float(servers[place]),
            int(served[place]),
            float(busy[place] / room[place]),
        )
        for place, name in enumerate(run.provider_names)
    )


def _welfare(run: Run, bound_usd: float) -> dict[str, float]:
    totals = run.totals
    worth, cost = float(totals.worth_nanos.sum()), float(totals.cost_nanos.sum())
    charge, take = float(totals.charge_nanos.sum()), float(totals.take_nanos.sum())
    per_h = _HOUR_S / max(run.counted_s, 1e-9) / _NANOS_PER_USD
    welfare_usd = (worth - cost) / _NANOS_PER_USD
    return {
        "welfare_share": welfare_usd / bound_usd if bound_usd > 0.0 else math.nan,
        "welfare_usd_per_h": (worth - cost) * per_h,
        "consumer_surplus_usd_per_h": (worth - charge) * per_h,
        "provider_surplus_usd_per_h": (charge - take - cost) * per_h,
        "revenue_usd_per_h": charge * per_h,
        "take_usd_per_h": take * per_h,
    }


def _service(run: Run, scenario: Scenario) -> dict[str, float]:
    totals = run.totals
    calls, counted_s = max(totals.count(), 1), max(run.counted_s, 1e-9)
    ttft_goals = [each.ttft_goal_s for each in scenario.classes]
    tpot_goals = [each.tpot_goal_s for each in scenario.classes]
    ttft, e2e = _together(run.ttft), _together(run.e2e)
    return {
        "served_share": totals.count(Code.SERVED) / calls,
        "refused_share": totals.count(*_REFUSED) / calls,
        "full_share": totals.count(Code.FULL) / calls,
        "failed_share": totals.count(*_FAILED) / calls,
        "ttft_goodput_per_s": _good(run.ttft, ttft_goals) / counted_s,
        "tpot_goodput_per_s": _good(run.tpot, tpot_goals) / counted_s,
        "ttft_p50_s": ttft.quantile_s(0.5),
        "ttft_p95_s": ttft.quantile_s(0.95),
        "e2e_p95_s": e2e.quantile_s(0.95),
    }


def _stability(run: Run, scenario: Scenario, best: Yardstick) -> dict[str, float]:
    slots, moves = _slots(run, scenario), run.moves
    return {
        "load": _mean(run.mean_load, slots),
        "excess_load": excess_load(run, scenario, best),
        "utilisation": _mean(run.mean_utilisation, slots),
        "price_sigma": _mean(moves.sigma, slots),
        "reversals_per_h": _mean(moves.reversals_per_h, slots),
        "swings_per_h": _mean(moves.swings_per_h, slots),
        "settling_s": settling_s(run, scenario),
    }


def _market(run: Run, scenario: Scenario) -> dict[str, float]:
    sales = _by_provider(run, _by_endpoint(run.totals.charge_nanos))
    room = _by_provider(run, _slots(run, scenario))
    there = room > 0.0
    each = sales[there] / room[there]
    squares = float((each**2).sum())
    total = float(sales.sum())
    profits = [maker.profit_usd for maker in provider_figures(run, scenario)]
    levels, served = price_levels(run, scenario)
    return {
        "price_level": _mean(levels, served),
        "hhi": float(((100.0 * sales / total) ** 2).sum()) if total else math.nan,
        "jain": float(each.sum()) ** 2 / (each.size * squares) if squares else math.nan,
        "in_profit_share": sum(profit >= 0.0 for profit in profits) / max(len(profits), 1),
    }


def _slots(run: Run, scenario: Scenario) -> FloatArray:
    """Slots of each endpoint times the seconds that it was there."""
    return np.array([each.capacity for _, each in scenario.endpoints]) * run.present_s


def _mean(values: FloatArray, weights: FloatArray) -> float:
    known = np.isfinite(values) & (weights > 0.0)
    return float(np.average(values[known], weights=weights[known])) if known.any() else math.nan


def _by_endpoint(totals: FloatArray | IntArray) -> FloatArray:
    """Sums over classes, without the calls that reached no endpoint."""
    return np.asarray(totals.sum(axis=0)[:-1], dtype=np.float64)


def _by_provider(run: Run, values: FloatArray) -> FloatArray:
    summed = np.bincount(run.provider_of, values, len(run.provider_names))
    return np.asarray(summed, dtype=np.float64)


def _together(parts: Sequence[Histogram]) -> Histogram:
    counts = np.sum([each.counts for each in parts], axis=0)
    return Histogram(parts[0].edges_s, counts, math.fsum(each.sum_s for each in parts))


def _good(parts: Sequence[Histogram], goals: Sequence[float]) -> float:
    pairs = zip(parts, goals, strict=True)
    return math.fsum(each.share_below(goal) * each.total for each, goal in pairs if each.total)
