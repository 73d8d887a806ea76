"""What a market reads like as an event, written once for all who see the same of it, beside the
calls.

Of 10,000 endpoints that takes a quarter of a second of the processor.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
import numpy as np

from broker.api.market.price_messages import prices
from broker.api.parts import Parts
from broker.core.catalog import Endpoint
from broker.core.market import Market
from broker.flows.access.authenticate import Caller
from broker.flows.market.read_prices import Look, may_see

KEPT_MAX: Final = 16
"""Texts of one market: who sees yet another choice of private endpoints has its own."""


class PriceTexts:
    """Those of the newest market that anybody was told."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._look: Look | None = None
        self._private: list[Endpoint] = []
        self._texts: dict[frozenset[int], asyncio.Task[bytes]] = {}

    async def of(self, market: Market, caller: Caller) -> bytes:
        """Return the event `book` that tells what `caller` may see of a market, as it was when the
        first asked for it; its id is the version."""
        look = self._look
        if look is None or look.market is not market:
            look = self._look = Look(market, self._parts.pulse, self._parts.now_s())
            self._texts = {}
            numbers = np.flatnonzero(market.columns.private).tolist()
            self._private = [market.endpoint(each) for each in numbers]
        seen = frozenset(each.number for each in self._private if may_see(caller, each))
        text = self._texts.get(seen)
        if text is None:
            text = asyncio.create_task(asyncio.to_thread(_event, look, caller))
            if len(self._texts) < KEPT_MAX:
                self._texts[seen] = text
        return await asyncio.shield(text)  # others may wait for it when this one leaves


def _event(look: Look, caller: Caller) -> bytes:
    shown = prices(look, caller)
    # JSON has no line ends of its own here, so that it is one line of the event.
    text = msgspec.json.encode(shown)
    return b"id: %d\r\nevent: book\r\ndata: %b\r\n\r\n" % (shown.version, text)
