"""What is measured of a run: each number's name, its unit, which way it is better, its meaning.

How each is worked out is in `simulations.measured.figures`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from simulations.measured.turns import SWING


class Better(enum.StrEnum):
    """Which way a measure is better."""

    HIGHER = "higher"
    LOWER = "lower"
    NEITHER = "neither"


class Group(enum.StrEnum):
    """What a measure is about; groups stand together in tables."""

    WELFARE = "Welfare"
    SERVICE = "Service"
    STABILITY = "Stability"
    MARKET = "Market"


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of a run; a share's unit is `%`, and it is a number from 0 to 1."""

    title: str
    unit: str
    better: Better
    group: Group
    meaning: str


_UP, _DOWN, _FLAT = Better.HIGHER, Better.LOWER, Better.NEITHER
_WELFARE, _SERVICE, _STABILITY, _MARKET = Group

MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "welfare_share": Measure(
            "Welfare over its bound",
            "%",
            _UP,
            _WELFARE,
            "welfare, over the most that any policy makes of the scenario on average",
        ),
        "welfare_usd_per_h": Measure(
            "Welfare", "USD/h", _UP, _WELFARE, "worth of the answers less the cost of serving"
        ),
        "consumer_surplus_usd_per_h": Measure(
            "Consumers' surplus", "USD/h", _UP, _WELFARE, "worth of the answers above charges"
        ),
        "provider_surplus_usd_per_h": Measure(
            "Providers' surplus", "USD/h", _UP, _WELFARE, "earnings above the cost of serving"
        ),
        "revenue_usd_per_h": Measure("Revenue", "USD/h", _UP, _WELFARE, "all charges"),
        "take_usd_per_h": Measure(
            "Broker's take", "USD/h", _UP, _WELFARE, "the broker's share of the charges"
        ),
        "served_share": Measure(
            "Served", "%", _UP, _SERVICE, "calls with a whole answer, of all that arrived"
        ),
        "refused_share": Measure(
            "Refused", "%", _DOWN, _SERVICE, "calls that were not sent, by anybody's choice"
        ),
        "full_share": Measure(
            "Found all full", "%", _DOWN, _SERVICE, "calls refused for want of room"
        ),
        "failed_share": Measure(
            "Failed", "%", _DOWN, _SERVICE, "calls sent that had no whole answer in time"
        ),
        "ttft_goodput_per_s": Measure(
            "TTFT goodput", "calls/s", _UP, _SERVICE, "answers whose first token came in time"
        ),
        "tpot_goodput_per_s": Measure(
            "TPOT goodput", "calls/s", _UP, _SERVICE, "answers whose further tokens came in time"
        ),
        "ttft_p50_s": Measure("TTFT, median", "s", _DOWN, _SERVICE, "time to the first token"),
        "ttft_p95_s": Measure("TTFT, 95%", "s", _DOWN, _SERVICE, "time to the first token"),
        "e2e_p95_s": Measure("Whole answer, 95%", "s", _DOWN, _SERVICE, "time to its end"),
        "load": Measure(
            "Load",
            "%",
            _FLAT,
            _STABILITY,
            "as controllers see it: running, waiting and refused work over capacity",
        ),
        "excess_load": Measure(
            "Load in excess demand",
            "%",
            _FLAT,
            _STABILITY,
            "load where the fluid optimum has been full for five minutes; it has a target",
        ),
        "utilisation": Measure(
            "Utilisation", "%", _UP, _STABILITY, "calls being worked on, over capacity"
        ),
        "price_sigma": Measure(
            "Price moves", "% a tick", _DOWN, _STABILITY, "standard deviation of d ln p, each tick"
        ),
        "reversals_per_h": Measure(
            "Reversals",
            "per h",
            _DOWN,
            _STABILITY,
            "how often a rise follows a fall or a fall a rise, however small",
        ),
        "swings_per_h": Measure(
            "Swings",
            "per h",
            _DOWN,
            _STABILITY,
            f"how often a price turns by more than {SWING:.0%}, which single calls hardly do",
        ),
        "settling_s": Measure(
            "Settling",
            "s",
            _DOWN,
            _STABILITY,
            "from a shock until prices stay within 5% of where they end, chance aside",
        ),
        "price_level": Measure(
            "Price over list",
            "x",
            _FLAT,
            _MARKET,
            "mean price over the list price, by calls served",
        ),
        "hhi": Measure(
            "Concentration (HHI)",
            "",
            _DOWN,
            _MARKET,
            "sum of squared shares of sales in percent; 10,000 is one provider alone",
        ),
        "jain": Measure(
            "Fairness (Jain)",
            "",
            _UP,
            _MARKET,
            "of sales for each slot among providers; 1 is all alike",
        ),
        "in_profit_share": Measure(
            "Providers in profit", "%", _UP, _MARKET, "who earn what serving and servers cost"
        ),
    }
)
