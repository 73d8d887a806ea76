"""Fills the market of a test: registers and lists endpoints, and publishes price books."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from broker.core.market import Presence, build_market
from broker.store.access.accounts import Account
from broker.store.market import catalog, prices
from pricing.book import PriceBook
from provider_sdk.protocol import EndpointOffer
from tests.integration.api.conftest import SmallBroker
from tests.integration.catalog.offers import SEALER, TAKE_BPS, endpoint_offer, enlist, offer


async def list_endpoints(broker: SmallBroker, provider: Account, *endpoints: EndpointOffer) -> None:
    """List a deployment named `gpu1` with these endpoints (one public one when none is given)."""
    offered = offer(endpoints=list(endpoints) or [endpoint_offer()])
    async with broker.engine.begin() as connection:
        terms = (TAKE_BPS, broker.clock())
        registered = await catalog.register(connection, provider.id, offered, SEALER, terms)
        await enlist(connection, registered)


async def publish(
    broker: SmallBroker,
    version: int,
    rate_in_micros: int,
    at: datetime | None = None,
    presence: dict[int, Presence] | None = None,
) -> None:
    """Publish a book in which every endpoint costs this much in, and twice of it out."""
    async with broker.engine.begin() as connection:
        _, listed = await catalog.load_market(connection, SEALER)
        size = max(each.number for each in listed) + 1
        rates = np.zeros((3, size), dtype=np.int64)
        rates[0], rates[1] = rate_in_micros, 2 * rate_in_micros
        book = PriceBook.from_matrix(version, rates)
        changed = [each.number for each in listed], [0.5] * len(listed)
        await prices.insert_book(connection, book, "test", changed, at or broker.clock())
    broker.market = build_market(listed, book, presence or {})
