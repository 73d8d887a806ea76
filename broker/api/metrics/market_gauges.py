"""The market as gauges of Prometheus, at a bounded cost however large it is, however many ask."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from broker.api.parts import Parts
from broker.flows.market.read_prices import Health, Listing, Look

SCRAPES_SHARE: Final = 0.05
"""Of a core, so much at most is spent on scrapes of a large market, however many ask."""
LITTLE_S: Final = 0.02
"""What takes no more of the processor is made for each who asks."""


class MarketGauges:
    """Shows the market to scrapes."""

    def __init__(
        self, parts: Parts, *, little_s: float = LITTLE_S, share: float = SCRAPES_SHARE
    ) -> None:
        self._parts = parts
        self._little_s, self._share = little_s, share
        self._making = asyncio.Lock()
        self._text, self._due_s = b"", -math.inf

    async def text(self) -> bytes:
        """Return the gauges as text: of a large market the same for all who ask within a while, and
        written in a thread, for calls are served meanwhile."""
        async with self._making:
            if time.monotonic() >= self._due_s:
                parts = self._parts
                look = Look(parts.market, parts.pulse, parts.now_s())
                self._text, written_s = await asyncio.to_thread(_written, look)
                beyond_s = max(0.0, written_s - self._little_s)
                self._due_s = time.monotonic() + beyond_s / self._share
            return self._text


class MarketCollector(Collector):
    """The market as it was read for a scrape, so that nothing is counted twice.

    An endpoint that is not visible to all goes by its number: whoever may scrape learns no name.
    """

    def __init__(self, look: Look) -> None:
        self.version = look.market.book.version
        self.listings = look.listings()

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges of the market."""
        yield GaugeMetricFamily(
            "broker_price_version", "Version of the price book in use.", self.version
        )
        yield from _endpoint_gauges(self.listings)
        states = GaugeMetricFamily("broker_endpoints", "Endpoints by health.", labels=["health"])
        counts = Counter(each.health for each in self.listings)
        for health in Health:
            count = counts[health]
            states.add_metric([health.value], count)
        yield states


def _written(look: Look) -> tuple[bytes, float]:
    """Return it as text, and the seconds of the processor that this took."""
    begun_s = time.thread_time()
    registry = CollectorRegistry()
    registry.register(MarketCollector(look))
    return generate_latest(registry), time.thread_time() - begun_s


def _endpoint_gauges(listings: list[Listing]) -> Iterator[Metric]:
    for name, text, value in _ENDPOINT_GAUGES:
        family = GaugeMetricFamily(name, text, labels=["endpoint"])
        for listing in listings:
            endpoint = listing.endpoint
            public = endpoint.visible_to is None
            label = endpoint.name if public else f"private/{endpoint.number}"
            family.add_metric([label], value(listing))
        yield family


def _rate(member: str) -> Callable[[Listing], float]:
    return lambda listing: getattr(listing.rate, member, 0)


_ENDPOINT_GAUGES: tuple[tuple[str, str, Callable[[Listing], float]], ...] = (
    ("broker_endpoint_load", "Calls in flight over capacity.", lambda listing: listing.load),
    (
        "broker_endpoint_price_in_micros",
        "Micro-dollars per million tokens in.",
        _rate("rate_in_micros"),
    ),
    (
        "broker_endpoint_price_out_micros",
        "Micro-dollars per million tokens out.",
        _rate("rate_out_micros"),
    ),
    ("broker_endpoint_price_call_nanos", "Nano-dollars per call.", _rate("rate_call_nanos")),
)
