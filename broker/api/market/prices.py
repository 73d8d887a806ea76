"""Prices: now, over time, and as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Annotated

from litestar import Controller, Response, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter
from litestar.response import ServerSentEventMessage

from broker.api import beside
from broker.api.callers import caller_of
from broker.api.market.price_messages import PriceChange, PriceHistory, Prices, price, prices
from broker.api.market.price_texts import PriceTexts
from broker.api.parts import (
    CallerRequest,
    GivenCaller,
    GivenFeed,
    GivenMarket,
    GivenParts,
    GivenPulse,
    GivenSeconds,
    Parts,
)
from broker.api.patience import STREAMS_PER_MINUTE, require_measure
from broker.api.price_feed import PriceFeed
from broker.api.streams import CountedEvents, Streams, in_pieces
from broker.api.wire import STRETCH, GivenStretch, Limit
from broker.core.key_terms import Scope
from broker.errors import BrokerError
from broker.flows.market.read_price_history import Period, read_price_history
from broker.flows.market.read_prices import Look
from broker.store.away import DATABASE_AWAY
from broker.store.market.prices import PriceChange as Change

HEARTBEAT_S = 15.0
"""After so long without a new book a comment is sent, so that nobody takes the stream for dead."""

LOOK_AGAIN_S = 2.0
"""So long a stream tells prices at most after its key was revoked or has expired."""

HISTORY_DEFAULT = timedelta(minutes=10)

GivenTexts = NamedDependency[PriceTexts]
GivenStreams = NamedDependency[Streams]
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
    ) -> Response[Prices]:
        return await beside.answer(partial(prices, Look(market, pulse, now_s), caller))

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
        self,
        request: CallerRequest,
        parts: GivenParts,
        feed: GivenFeed,
        texts: GivenTexts,
        streams: GivenStreams,
    ) -> CountedEvents:
        await require_measure(parts, request.user, "streams", STREAMS_PER_MINUTE)
        place = streams.take(request.user.account_id)
        return CountedEvents(place, _books(feed, texts, Listener(request, parts)))


def _change(change: Change) -> PriceChange:
    return PriceChange(
        at=change.at, version=change.version, price=price(change.rate), load=round(change.load, 4)
    )


class Listener:
    """Who follows a stream, for as long as its key or session is good."""

    def __init__(self, request: CallerRequest, parts: Parts) -> None:
        self._request, self._parts = request, parts
        self._looked_s = parts.now_s()
        self.caller = request.user

    async def may_listen(self) -> bool:
        """Return whether it still may, by what was known within LOOK_AGAIN_S; while the database is
        away it may as before."""
        now_s = self._parts.now_s()
        if now_s - self._looked_s < LOOK_AGAIN_S:
            return True
        try:
            self.caller = await caller_of(self._request, self._parts)
            self.caller.require(Scope.READ, Scope.MONEY)
        except BrokerError:
            return False
        except DATABASE_AWAY:
            return True
        self._looked_s = now_s
        return True


async def _books(
    feed: PriceFeed, texts: PriceTexts, listener: Listener
) -> AsyncIterator[ServerSentEventMessage]:
    """One event `book` a price book, its id the version; comments in between."""
    async for market in feed.follow(HEARTBEAT_S):
        if not await listener.may_listen():
            return
        if market is None:
            yield ServerSentEventMessage(comment="no new book", data=None)
            continue
        async for piece in in_pieces(await texts.of(market, listener.caller)):
            yield piece
