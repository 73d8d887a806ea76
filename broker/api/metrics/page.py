"""`/metrics`: what the process counts, in the text format of Prometheus."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable

from litestar import Response, get
from litestar.types import BeforeMessageSendHookHandler, Message, Scope
from prometheus_client import CollectorRegistry, Counter, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from broker.api.callers import OPEN
from broker.api.metrics.ledger_gauges import ledger_gauges
from broker.api.metrics.market_gauges import MarketGauges
from broker.api.metrics.plane_metrics import Plane, PlaneCollector
from broker.api.metrics.tallies import EVERY_S, Tallies
from broker.api.metrics.turnover_metrics import TurnoverCollector
from broker.api.parts import GivenEngine, GivenExposition, Parts


class CallCollector(Collector):
    """Reads what the data plane counts of its calls."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def collect(self) -> Iterable[Metric]:
        """Yield calls by status and under way; no label says whose they are."""
        yield GaugeMetricFamily(
            "broker_calls_in_flight", "Calls under way.", self.parts.calls_in_flight
        )
        answered = CounterMetricFamily(
            "broker_calls_answered",
            "Calls by the status that their caller was told, 499 for one who left.",
            labels=["kind", "status"],
        )
        for (kind, status), count in sorted(self.parts.answered.items()):
            answered.add_metric([kind, str(status)], count)
        yield answered


class LimitCollector(Collector):
    """Reads what became of keys at their rate limits."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def collect(self) -> Iterable[Metric]:
        """Yield two counters."""
        limits = self.parts.live.limits
        yield CounterMetricFamily(
            "broker_key_rate_refused", "Calls refused for their key's rate.", limits.refused
        )
        yield CounterMetricFamily(
            "broker_key_rate_granted_alone",
            "Grants under keys' rate limits that this process made alone, without Valkey.",
            limits.granted_alone,
        )


def create_registry(parts: Parts, plane: Plane | None = None) -> CollectorRegistry:
    """Return a registry with the process and the calls, and with what the data plane counts where
    there is one; others may register more."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(CallCollector(parts))
    registry.register(LimitCollector(parts))
    if plane is not None:
        registry.register(PlaneCollector(plane))
        registry.register(TurnoverCollector(plane.ledger.turnover))
    return registry


class Exposition:
    """What a scrape is shown: the market, and what this worker or all of one port have counted."""

    def __init__(
        self,
        parts: Parts,
        registry: CollectorRegistry,
        tallies: Tallies | None = None,
    ) -> None:
        self._market = MarketGauges(parts)
        self._registry = registry
        self._tallies = tallies
        self._merging = asyncio.Lock()
        self._merged, self._merged_s = b"", -math.inf

    async def text(self) -> bytes:
        """Return it as text; of several workers each sample that is not the market's says whose."""
        market = await self._market.text()
        if self._tallies is None:
            return market + generate_latest(self._registry)
        return market + await self._of_all(self._tallies)

    async def _of_all(self, tallies: Tallies) -> bytes:
        """Return what all workers have counted, merged once for all who ask within EVERY_S, and in
        a thread: of many workers it is much, and calls are served meanwhile."""
        async with self._merging:
            if time.monotonic() - self._merged_s >= EVERY_S:
                own = generate_latest(self._registry)
                self._merged = await asyncio.to_thread(tallies.shown, own)
                self._merged_s = time.monotonic()
            return self._merged


def count_answers(registry: CollectorRegistry) -> BeforeMessageSendHookHandler:
    """Return a hook that counts the control plane's answers by route, never by the path asked."""
    answers = Counter(
        "broker_api_answers",
        "Answers of the control plane.",
        ["method", "route", "status"],
        registry=registry,
    )

    async def count(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            method, route = scope.get("method"), scope.get("path_template")
            answers.labels(method or "", route or "unknown", str(message["status"])).inc()

    return count


@get("/metrics", summary="Metrics", tags=["Health"], opt={OPEN: True}, include_in_schema=False)
async def metrics(exposition: GivenExposition, engine: GivenEngine) -> Response[bytes]:
    """All metrics as text."""
    text = await exposition.text() + await ledger_gauges(engine)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
