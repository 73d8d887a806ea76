"""What the data plane has counted, read when it is scraped: shed calls, retries, hedges, lanes.

All label sets are bounded: codes are those of the broker's own errors, lanes are five.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from broker.core.health.pulse import Pulse
from broker.core.health.throttle import Throttle
from broker.core.hedging import HedgeBudget
from broker.core.retries import RetryBudget
from broker.flows.books.batch import LedgerBatcher
from broker.live.room import Live
from broker.upstream.client import UpstreamClient

_WAITED_FOR: Final = ("holds", "settlements")
"""The lanes that calls wait for."""


class Plane(Protocol):
    """The share of the runtime that is told of here."""

    @property
    def pulse(self) -> Pulse: ...
    @property
    def live(self) -> Live: ...
    @property
    def ledger(self) -> LedgerBatcher: ...
    @property
    def retries(self) -> RetryBudget: ...
    @property
    def hedges(self) -> HedgeBudget: ...
    @property
    def throttle(self) -> Throttle: ...
    @property
    def shed(self) -> Mapping[str, int]: ...
    @property
    def continued(self) -> int: ...
    @property
    def silences(self) -> int: ...
    @property
    def upstream(self) -> UpstreamClient: ...
    @property
    def now_s(self) -> Callable[[], float]: ...


class PlaneCollector(Collector):
    """Reads the counts of one process."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def collect(self) -> Iterable[Metric]:
        """Yield all of them."""
        yield from self._policies()
        yield from self._breakers()
        yield from _lanes(self._plane.ledger)
        yield GaugeMetricFamily(
            "broker_valkey_reachable",
            "1 while Valkey answers; without it each process goes by what it knows itself.",
            float(self._plane.live.valkey.reachable),
        )

    def _policies(self) -> Iterator[Metric]:
        plane = self._plane
        shed = CounterMetricFamily(
            "broker_calls_shed", "Calls refused for want of room, by error code.", labels=["code"]
        )
        for code, count in sorted(plane.shed.items()):
            shed.add_metric([code], count)
        yield shed
        for name, text, count in (
            ("broker_retries", "Attempts after one that failed.", plane.retries.made),
            ("broker_retries_denied", "Retries that their budget forbade.", plane.retries.denied),
            ("broker_hedges", "Attempts beside one that was late.", plane.hedges.made),
            ("broker_hedges_won", "Of those, how many answered first.", plane.hedges.won),
            ("broker_continuations", "Attempts to go on after a cut.", plane.continued),
            ("broker_silences", "Servers that lost their calls for being silent.", plane.silences),
        ):
            yield CounterMetricFamily(name, text, count)
        yield GaugeMetricFamily(
            "broker_retries_left",
            "Retries that their budget would pay for now.",
            plane.retries.left(plane.now_s()),
        )
        yield GaugeMetricFamily(
            "broker_endpoints_limited",
            "Endpoints that get fewer calls at once than their declared capacity allows.",
            plane.throttle.limited(),
        )
        yield GaugeMetricFamily(
            "broker_answers_kept_bytes",
            "Of large answers that are kept whole until their callers have them.",
            plane.upstream.kept_bytes,
        )
        yield GaugeMetricFamily(
            "broker_late_seconds",
            "How late the process comes to what is due: it has more to do than it manages.",
            plane.throttle.late_ms / 1_000,
        )

    def _breakers(self) -> Iterator[Metric]:
        pulse = self._plane.pulse
        family = GaugeMetricFamily(
            "broker_breakers",
            "Endpoints whose breaker is open, here or in another process.",
            labels=["where"],
        )
        here = sum(each.ejection_s > 0 for each in pulse.doubts.breakers.values())
        family.add_metric(["here"], here)
        family.add_metric(["elsewhere"], len(pulse.doubts.elsewhere))
        yield family


def _lanes(ledger: LedgerBatcher) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "broker_ledger_waiting", "Holds, settlements and records to be written.", labels=["lane"]
    )
    commits = HistogramMetricFamily(
        "broker_ledger_commit_seconds", "How long a batch took to be durable.", labels=["lane"]
    )
    lanes = ledger.lanes()
    for name, lane in lanes.items():
        waiting.add_metric([name], len(lane.queue))
        commits.add_metric([name], lane.commits.buckets(), lane.commits.sum_s)
    yield waiting
    yield commits
    waits = HistogramMetricFamily(
        "broker_ledger_wait_seconds",
        "How long calls waited until their hold, or what they ended with, was durable.",
        labels=["lane"],
    )
    for name in _WAITED_FOR:
        lane = lanes[name]
        waits.add_metric([name], lane.waits.buckets(), lane.waits.sum_s)
    yield waits
    yield CounterMetricFamily(
        "broker_holds_ready",
        "Calls whose hold was ready before them: they are not among those that waited.",
        ledger.ahead.taken,
    )
    yield GaugeMetricFamily(
        "broker_ledger_waiting_limit", "So many holds may wait at once.", ledger.holds_limit
    )
