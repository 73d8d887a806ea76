"""What the ledger's monitor found, as gauges: the worker that checks is another process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.flows.books.monitor import read_last
from broker.store.away import DATABASE_AWAY
from broker.store.books.ledger_checks import LastCheck

READ_WITHIN_S = 2.0


class LedgerCollector(Collector):
    """Gauges of what was read."""

    def __init__(self, checks: Sequence[LastCheck]) -> None:
        self.checks = checks

    def collect(self) -> Iterable[Metric]:
        """Yield alarms by view, and when each check was last begun: one that stays has stopped."""
        alarms = GaugeMetricFamily(
            "broker_ledger_alarms",
            "Rows of a view that should have none, at most 100.",
            labels=["view"],
        )
        at = GaugeMetricFamily(
            "broker_ledger_checked_timestamp_seconds",
            "Unix time at which the ledger was last checked.",
            labels=["check"],
        )
        took = GaugeMetricFamily(
            "broker_ledger_check_duration_seconds", "How long that took.", labels=["check"]
        )
        for check in self.checks:
            for view, count in sorted(check.alarms.items()):
                alarms.add_metric([view], count)
            at.add_metric([check.kind.value], check.at.timestamp())
            took.add_metric([check.kind.value], check.took_ms / 1_000)
        return (alarms, at, took)


async def ledger_gauges(engine: AsyncEngine) -> bytes:
    """Return the gauges as text; none while the database cannot be read."""
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            checks = await read_last(engine)
    except DATABASE_AWAY:
        return b""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(checks))
    return generate_latest(registry)
