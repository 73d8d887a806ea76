"""How prices are written: decimal strings in USD, tokens by the million."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from broker.api.wire import Reply
from broker.core.catalog import Band, Endpoint, Task
from broker.flows.access.authenticate import Caller
from broker.flows.market.read_prices import Health, Listing, Look, may_see
from pricing.book import Rate
from pricing.money import format_rate, format_usd
from pricing.tiers import Tier, tier_rate


class Price(Reply):
    """A price: USD per million tokens in and out, USD per call; what is not priced is 0.00."""

    price_in_usd: str
    price_out_usd: str
    price_call_usd: str


class PricedEndpoint(Reply):
    """An endpoint as it stands in the market; `load` is calls in flight over capacity."""

    name: str
    model: str
    version: str
    provider: str
    region: str
    tasks: list[Task]
    domains: dict[str, float]
    quality: float
    context_length_tokens: int | None
    price: Price | None
    floor: Price
    listed: Price
    ceiling: Price
    tiers: dict[Tier, Price]
    """What the tiers cost beside the standard one, as far as they have a price."""
    load: float
    health: Health
    private: bool


class Prices(Reply):
    """All prices that the caller may see, at one version of the book."""

    version: int
    endpoints: list[PricedEndpoint]


class PriceChange(Reply):
    """A price from the moment `at` on, and the load that moved it; version 0 is a list price, which
    holds until the first change."""

    at: datetime
    version: int
    price: Price
    load: float


class PriceHistory(Reply):
    """Price changes, oldest first; what came before is asked for with `to`."""

    endpoint: str
    changes: list[PriceChange]


def prices(look: Look, caller: Caller) -> Prices:
    """Write down what `caller` may see of the market."""
    return Prices(
        version=look.market.book.version,
        endpoints=[_endpoint(each) for each in look.listings() if may_see(caller, each.endpoint)],
    )


def price(rate: Rate) -> Price:
    """Write one rate."""
    return _price(rate.rate_in_micros, rate.rate_out_micros, rate.rate_call_nanos)


def _endpoint(listing: Listing) -> PricedEndpoint:
    endpoint = listing.endpoint
    return PricedEndpoint(
        name=endpoint.name,
        model=endpoint.model,
        version=endpoint.version,
        provider=endpoint.deployment.provider,
        region=endpoint.deployment.region,
        tasks=sorted(endpoint.tasks),
        domains=endpoint.domains,
        quality=endpoint.quality,
        context_length_tokens=endpoint.context_length_tokens,
        price=None if listing.rate is None else price(listing.rate),
        tiers={} if listing.rate is None else _tiers(endpoint, listing.rate),
        load=round(listing.load, 4),
        health=listing.health,
        private=endpoint.visible_to is not None,
        **_band(endpoint.band),
    )


def _tiers(endpoint: Endpoint, rate: Rate) -> dict[Tier, Price]:
    floor, ceiling = endpoint.band.floor, endpoint.band.ceiling
    return {
        tier: price(tier_rate(rate, factor_bps, floor, ceiling))
        for tier, factor_bps in endpoint.tiers.items()
    }


def _band(band: Band) -> dict[str, Any]:
    return {
        "floor": _price(band.floor_in_micros, band.floor_out_micros, band.floor_call_nanos),
        "listed": _price(band.list_in_micros, band.list_out_micros, band.list_call_nanos),
        "ceiling": _price(band.ceiling_in_micros, band.ceiling_out_micros, band.ceiling_call_nanos),
    }


def _price(in_micros: int, out_micros: int, call_nanos: int) -> Price:
    return Price(
        price_in_usd=format_rate(in_micros),
        price_out_usd=format_rate(out_micros),
        price_call_usd=format_usd(call_nanos),
    )
