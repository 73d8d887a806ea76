"""How providers behave: what they list, what they report, what they declare, what they claim.

Prices are compared as sums of rates and moved as multiples of the provider's own list price, so an
endpoint's rates keep their proportions. No strategy sells below its cost, but for bait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from broker.core.catalog import Band
from pricing.book import Rate
from simulations.supply import (
    Bait,
    CollusiveFloor,
    CostPlus,
    EndpointSpec,
    LieAboutLoad,
    LieAboutQuality,
    LieAboutTokens,
    Strategy,
    Undercut,
)

_RATES = ("in_micros", "out_micros", "call_nanos")


@dataclass(frozen=True, slots=True)
class Sight:
    """What a provider sees of the market when it acts for one of its endpoints."""

    at_s: float
    cheapest_other: float
    """The least sum of rates among other providers' endpoints of the model; infinite for none."""
    mean_load: float
    """Of the endpoint, since it last acted."""
    band: Band
    """That stands now."""


def declared(strategy: Strategy, spec: EndpointSpec) -> tuple[float, Mapping[str, float]]:
    """Quality in general and by domain, as the provider says."""
    if isinstance(strategy, LieAboutQuality):
        return strategy.declared, dict.fromkeys(spec.domains, strategy.declared)
    return spec.quality, spec.domains


def reported(strategy: Strategy, running: int, waiting: int) -> tuple[float, float]:
    """Calls running and waiting, as the provider says."""
    if isinstance(strategy, LieAboutLoad):
        return running * strategy.multiple + strategy.idle, waiting * strategy.multiple
    return float(running), float(waiting)


def claimed(strategy: Strategy, tokens: int) -> int:
    """Tokens of an answer, as the provider says."""
    if isinstance(strategy, LieAboutTokens):
        return round(tokens * strategy.multiple)
    return tokens


def acts_every_s(strategy: Strategy) -> float | None:
    """How often a provider looks at its prices; None where it never does."""
    if isinstance(strategy, Undercut | CostPlus | Bait):
        return strategy.every_s
    return 1.0 if isinstance(strategy, CollusiveFloor) else None


def band_for(strategy: Strategy, spec: EndpointSpec, sight: Sight) -> Band:
    """The band that the provider sets now."""
    listed, cost = _sum(spec.band, "list"), _rates(spec.cost)
    match strategy:
        case Undercut(share):
            if sight.cheapest_other == float("inf"):
                return spec.band
            return _listed_at(spec.band, (1.0 - share) * sight.cheapest_other / listed, cost)
        case CostPlus(margin):
            if not any(cost):
                return spec.band
            return _listed_at(spec.band, (1.0 + margin) * sum(cost) / listed, cost)
        case CollusiveFloor(multiple, from_s, to_s):
            agreed = from_s <= sight.at_s < to_s
            return _floored_at(spec.band, multiple) if agreed else spec.band
        case Bait(lure, catch, until_load):
            trapped = _sum(sight.band, "list") > listed
            closes = sight.mean_load > (until_load / 2.0 if trapped else until_load)
            return _listed_at(spec.band, catch if closes else lure, (0, 0, 0))
        case _:
            return spec.band


def _listed_at(band: Band, factor: float, least: tuple[int, ...]) -> Band:
    """The band with its list price at a multiple, within its ceiling; its floor gives way."""
    changes: dict[str, int] = {}
    for name, minimum in zip(_RATES, least, strict=True):
        floor, listed, ceiling = (getattr(band, f"{edge}_{name}") for edge in _EDGES)
        if not ceiling:
            continue
        price = min(max(round(listed * factor), minimum, 1), ceiling)
        changes |= {f"list_{name}": price, f"floor_{name}": min(floor, price)}
    return replace(band, **changes)


def _floored_at(band: Band, multiple: float) -> Band:
    """The band with its floor, and a list price at least as high, at a multiple of its list."""
    changes: dict[str, int] = {}
    for name in _RATES:
        _, listed, ceiling = (getattr(band, f"{edge}_{name}") for edge in _EDGES)
        if ceiling:
            floor = min(max(round(listed * multiple), 1), ceiling)
            changes |= {f"floor_{name}": floor, f"list_{name}": max(listed, floor)}
    return replace(band, **changes)


_EDGES = ("floor", "list", "ceiling")


def _sum(band: Band, edge: str) -> int:
    return sum(getattr(band, f"{edge}_{name}") for name in _RATES)


def _rates(rate: Rate) -> tuple[int, int, int]:
    return rate.rate_in_micros, rate.rate_out_micros, rate.rate_call_nanos
