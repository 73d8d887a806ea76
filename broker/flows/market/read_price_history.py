"""Reads how the price of an endpoint moved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.market import Market
from broker.errors import NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.market.read_prices import may_see
from broker.store.access.accounts import Role
from broker.store.market import endpoint_names, prices
from broker.store.market.endpoint_names import NamedEndpoint
from broker.store.market.prices import PriceChange


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` on, before `until` (None: now), the newest `limit` changes of it."""

    since: datetime
    until: datetime | None = None
    limit: int = 1_000


async def read_price_history(
    engine: AsyncEngine, market: Market, caller: Caller, name: str, period: Period
) -> list[PriceChange]:
    """Return changes oldest first, before them the price in force at the beginning, if any.

    Before its first change an endpoint is sold at its list price, which is told as of version 0.

    Raises NotFound for an endpoint that is not, or that the caller may not see.
    """
    async with engine.connect() as connection:
        named = await endpoint_names.by_name(connection, name)
        if not named or not _visible(named[0], market, caller):
            raise NotFound(f"There is no endpoint named '{name}'.")
        numbers = [each.number for each in named]
        changes = await prices.history(
            connection, numbers, period.since, until=period.until, limit=period.limit
        )
        if len(changes) == period.limit:
            return changes
        before = await prices.rates_at(connection, numbers, period.since)
        if len(before) < len(numbers):
            listed = await prices.list_prices_before(connection, numbers)
            before += [each for each in listed if each.at <= period.since]
            changes = _merged(changes, listed, period)
    newest = sorted(before, key=lambda each: each.at)[-1:]
    known = [*(each for each in newest if each not in changes), *changes]
    return known[-period.limit :]


def _merged(
    changes: list[PriceChange], listed: list[PriceChange], period: Period
) -> list[PriceChange]:
    """Return the changes and the list prices that were told in the period, oldest first."""
    until = period.until
    told = [e for e in listed if e.at > period.since and (until is None or e.at < until)]
    return sorted([*told, *changes], key=lambda each: (each.at, each.version))


def _visible(named: NamedEndpoint, market: Market, caller: Caller) -> bool:
    if caller.role is Role.OPERATOR or caller.account_id == named.provider_id:
        return True
    number = market.by_name.get(named.name)
    return number is not None and may_see(caller, market.endpoint(number))
