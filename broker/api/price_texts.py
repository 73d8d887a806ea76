"""What a market reads like as JSON, written once for all who see the same of it, beside the calls.

Of 10,000 endpoints that takes a quarter of a second of the processor.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from broker.api import beside
from broker.api.parts import Parts
from broker.api.price_messages import prices
from broker.core.catalog import Endpoint
from broker.core.market import Market
from broker.flows.authenticate import Caller
from broker.flows.read_prices import Listing, may_see, read_prices

KEPT_MAX: Final = 16
"""Texts of one market: who sees yet another choice of private endpoints has its own."""


class PriceTexts:
    """Those of the newest market that anybody was told."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._market: Market | None = None
        self._listings: list[Listing] = []
        self._private: list[Endpoint] = []
        self._texts: dict[frozenset[int], asyncio.Task[bytes]] = {}

    async def of(self, market: Market, caller: Caller) -> bytes:
        """Return what `caller` may see of a market, as it was when the first asked for it."""
        if market is not self._market:
            self._market, self._texts = market, {}
            self._listings = read_prices(market, self._parts.pulse, self._parts.now_s())
            endpoints = (each.endpoint for each in self._listings)
            self._private = [each for each in endpoints if each.visible_to is not None]
        seen = frozenset(each.number for each in self._private if may_see(caller, each))
        text = self._texts.get(seen)
        if text is None:
            told = partial(prices, market, self._listings, caller)
            text = asyncio.create_task(beside.written(told))
            if len(self._texts) < KEPT_MAX:
                self._texts[seen] = text
        return await asyncio.shield(text)  # others may wait for it when this one leaves
