"""Advises a provider on an endpoint's price band, from what the endpoint itself has sold."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.catalog import Endpoint
from broker.core.market import Market
from broker.errors import NotFound
from broker.flows.access.authenticate import Caller
from broker.store.access.accounts import Role
from broker.store.market import endpoint_names, prices, sales
from broker.store.market.sales import Sold, Stretch
from pricing.advice import Advice, Sales, advise
from pricing.book import FloatArray, Rate
from pricing.money import PICOS_PER_NANO

PERIOD_S: Final = 900
"""Short enough for a price that moves with the load, long enough to count calls in."""


@dataclass(frozen=True, slots=True)
class UsualCall:
    """The mean of an endpoint's calls."""

    calls: int
    tokens_in: float
    tokens_out: float
    duration_s: float

    def price_nanos(self, rate: Rate) -> float:
        """Return what it costs at a rate."""
        tokens = self.tokens_in * rate.rate_in_micros + self.tokens_out * rate.rate_out_micros
        return tokens / PICOS_PER_NANO + rate.rate_call_nanos


@dataclass(frozen=True, slots=True)
class Advised:
    """Advice, what it is about, and the list price that it is to be set against."""

    endpoint: Endpoint
    advice: Advice
    usual: UsualCall
    listed_nanos: float | None
    """What the usual call costs at the list price of today; None where there was no call."""
    stretch: Stretch


async def advise_price(
    engine: AsyncEngine,
    market: Market,
    caller: Caller,
    name: str,
    asked: tuple[int, int, datetime],
) -> Advised:
    """Return the advice; `asked` are days, the cost of a call in nano-dollars, and now.

    Raises NotFound for an endpoint that is not on the market, or is not the caller's.
    """
    days, cost_nanos, now = asked
    endpoint = _own(market, caller, name)
    stretch = _stretch(days, now)
    async with engine.connect() as connection:
        numbers = [each.number for each in await endpoint_names.by_name(connection, name)]
        sold = await sales.sold_by_period(connection, numbers, stretch)
        usual = _usual(sold)
        price = await _prices(connection, numbers, stretch, usual)
    busy = endpoint.deployment.capacity * PERIOD_S
    told = Sales(
        begins_s=stretch.since.timestamp(),
        period_s=PERIOD_S,
        price_nanos=price,
        calls=_calls(sold, stretch),
        calls_max=busy / usual.duration_s if usual.duration_s > 0.0 else float(busy),
        cost_nanos=cost_nanos,
    )
    band = endpoint.band
    listed = Rate(band.list_in_micros, band.list_out_micros, band.list_call_nanos)
    # A usual call that today's prices make free would make every factor of them infinite.
    listed_nanos = max(usual.price_nanos(listed), 1.0) if usual.calls else None
    advice = await asyncio.to_thread(advise, told)  # for calls are served meanwhile
    return Advised(endpoint, advice, usual, listed_nanos, stretch)


def _own(market: Market, caller: Caller, name: str) -> Endpoint:
    number = market.by_name.get(name)
    if number is not None:
        endpoint = market.endpoint(number)
        if caller.role is Role.OPERATOR or endpoint.deployment.provider_id == caller.account_id:
            return endpoint
    raise NotFound(f"There is no endpoint of yours named '{name}' on the market.")


def _stretch(days: int, now: datetime) -> Stretch:
    """Return whole periods, the last of them over."""
    until_s = int(now.timestamp()) // PERIOD_S * PERIOD_S
    until = datetime.fromtimestamp(until_s, UTC)
    return Stretch(until - timedelta(days=days), until, PERIOD_S)


def _usual(sold: list[Sold]) -> UsualCall:
    calls = sum(each.calls for each in sold)
    return UsualCall(
        calls=calls,
        tokens_in=sum(each.tokens_in for each in sold) / max(calls, 1),
        tokens_out=sum(each.tokens_out for each in sold) / max(calls, 1),
        duration_s=sum(each.duration_ms for each in sold) / 1_000.0 / max(calls, 1),
    )


def _first(stretch: Stretch) -> int:
    return int(stretch.since.timestamp()) // stretch.period_s


def _count(stretch: Stretch) -> int:
    return int((stretch.until - stretch.since).total_seconds()) // stretch.period_s


def _calls(sold: list[Sold], stretch: Stretch) -> FloatArray:
    calls = np.zeros(_count(stretch))
    for each in sold:
        calls[each.period - _first(stretch)] = each.calls
    return calls


async def _prices(
    connection: AsyncConnection, numbers: list[int], stretch: Stretch, usual: UsualCall
) -> FloatArray:
    """Return what the usual call cost at the beginning of each period; NaN before any price."""
    before = await prices.rates_at(connection, numbers, stretch.since)
    newest = max(before, key=lambda each: each.at, default=None)
    standing = float("nan") if newest is None else usual.price_nanos(newest.rate)
    changed = await sales.last_rates_by_period(connection, numbers, stretch)
    cost = np.empty(_count(stretch))
    for place in range(cost.size):
        cost[place] = standing
        if rate := changed.get(_first(stretch) + place):
            standing = usual.price_nanos(rate)
    return cost
