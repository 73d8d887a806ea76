"""The feed wakes every listener, keeps nothing for a slow one, and rests when all have left."""

from __future__ import annotations

import asyncio
import contextlib

from broker.api.price_feed import PriceFeed
from broker.core.market import Market, build_market
from pricing.book import PriceBook


def market(version: int) -> Market:
    return build_market([], PriceBook.empty(version), {})


class Source:
    """Where the feed looks."""

    def __init__(self) -> None:
        self.market = market(1)
        self.stopping = False

    def feed(self) -> PriceFeed:
        return PriceFeed(lambda: self.market, lambda: self.stopping)


async def test_every_listener_hears_of_a_new_market() -> None:
    source = Source()
    feed = source.feed()
    listeners = [feed.follow(30) for _ in range(3)]
    for version in (1, 2, 3):
        source.market = market(version)
        async with asyncio.timeout(10):
            heard = [await anext(each) for each in listeners]
        assert heard == [source.market] * 3
    for each in listeners:
        await each.aclose()


async def test_a_slow_listener_skips_to_the_newest() -> None:
    source = Source()
    async with contextlib.aclosing(source.feed().follow(30)) as listener:
        await anext(listener)
        for version in range(2, 50):
            source.market = market(version)
        async with asyncio.timeout(10):
            assert await anext(listener) is source.market


async def test_a_quiet_market_gives_heartbeats() -> None:
    source = Source()
    async with contextlib.aclosing(source.feed().follow(0.01)) as listener:
        assert await anext(listener) is source.market
        assert [await anext(listener) for _ in range(3)] == [None] * 3


async def test_the_feed_rests_when_the_last_listener_has_left() -> None:
    source = Source()
    feed = source.feed()
    first, second = feed.follow(0.01), feed.follow(0.01)
    await anext(first)
    await anext(second)
    assert feed.watching
    await first.aclose()
    assert feed.watching
    await second.aclose()
    assert not feed.watching


async def test_all_streams_end_when_the_broker_stops() -> None:
    source = Source()
    async with contextlib.aclosing(source.feed().follow(30)) as listener:
        await anext(listener)
        source.stopping = True
        async with asyncio.timeout(10):
            assert [each async for each in listener] == []
