"""Prices: now, over time, and as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from broker.api.parts import (
    GivenCaller,
    GivenFeed,
    GivenMarket,
    GivenParts,
    GivenPulse,
    GivenSeconds,
)
from broker.api.patience import STREAMS_PER_MINUTE, require_measure
from broker.api.price_feed import PriceFeed
from broker.api.price_messages import PriceChange, PriceHistory, Prices, price, prices
from broker.api.price_texts import PriceTexts
from broker.api.wire import STRETCH, GivenStretch, Limit
from broker.flows.authenticate import Caller
from broker.flows.read_price_history import Period, read_price_history
from broker.flows.read_prices import read_prices
from broker.store.prices import PriceChange as Change

HEARTBEAT_S = 15.0
"""After so long without a new book a comment is sent, so that nobody takes the stream for dead."""

HISTORY_DEFAULT = timedelta(minutes=10)

GivenTexts = NamedDependency[PriceTexts]
EndpointName = Annotated[
    str, QueryParameter(name="endpoint", max_length=127, description="provider/endpoint")
]


class PriceController(Controller):
    """`/api/prices`"""

    path = "/prices"
    tags = ("Prices",)

    @get(summary="Prices now")
    async def now(
        self, market: GivenMarket, pulse: GivenPulse, now_s: GivenSeconds, caller: GivenCaller
    ) -> Prices:
        listings = read_prices(market, pulse, now_s)
        return await asyncio.to_thread(prices, market, listings, caller)

    @get("/history", summary="Prices over time", dependencies=STRETCH)
    async def history(
        self,
        parts: GivenParts,
        caller: GivenCaller,
        endpoint: EndpointName,
        stretch: GivenStretch,
        limit: Limit = 1_000,
    ) -> PriceHistory:
        since = stretch.since or parts.clock() - HISTORY_DEFAULT
        period = Period(since, stretch.until, limit)
        changes = await read_price_history(parts.engine, parts.market, caller, endpoint, period)
        return PriceHistory(endpoint=endpoint, changes=[_change(each) for each in changes])

    @get("/stream", summary="Prices as they come (server-sent events)")
    async def stream(
        self, parts: GivenParts, feed: GivenFeed, texts: GivenTexts, caller: GivenCaller
    ) -> ServerSentEvent:
        await require_measure(parts, caller, "streams", STREAMS_PER_MINUTE)
        return ServerSentEvent(_books(feed, texts, caller))


def _change(change: Change) -> PriceChange:
    return PriceChange(
        at=change.at, version=change.version, price=price(change.rate), load=round(change.load, 4)
    )


async def _books(
    feed: PriceFeed, texts: PriceTexts, caller: Caller
) -> AsyncIterator[ServerSentEventMessage]:
    """One event `book` a price book, its id the version; comments in between."""
    async for market in feed.follow(HEARTBEAT_S):
        if market is None:
            yield ServerSentEventMessage(comment="no new book", data=None)
            continue
        told = await texts.of(market, caller)
        yield ServerSentEventMessage(event="book", id=market.book.version, data=told)
