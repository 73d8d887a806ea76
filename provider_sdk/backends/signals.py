"""Which metrics of an inference server say how busy it is.

A server is a table: for each signal the names it has had over the versions, the newest first.
Counts are summed over series (one for each engine, rank or model), KV usage is the fullest one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from provider_sdk.backends.prometheus import Metric, Scrape, values
from provider_sdk.protocol import REPORTED_CALLS_MAX, LoadReport

Names = tuple[Metric, ...]


@dataclass(frozen=True, slots=True)
class Signals:
    """How one kind of inference server tells its load."""

    backend: str
    mark: str
    """How the names of all its metrics begin; by it the server is known."""
    running: Names = ()
    waiting: Names = ()
    kv_usage: Names = ()
    """Fractions 0 to 1, also where the name says percent."""
    capacity_path: str | None = None
    """Where it tells, as JSON, how many calls it serves at once."""
    capacity_field: str = ""

    def shown_in(self, scrape: Scrape) -> bool:
        """Whether this server wrote the metrics."""
        return any(name.startswith(self.mark) for name in scrape)

    def read(self, scrape: Scrape) -> LoadReport:
        """The load in `scrape`; `None` for what it does not say."""
        running = _first(scrape, self.running, sum)
        waiting = _first(scrape, self.waiting, sum)
        usage = _first(scrape, self.kv_usage, max)
        return LoadReport(
            running=None if running is None else _calls(running),
            waiting=None if waiting is None else _calls(waiting),
            kv_usage=None if usage is None else min(1.0, max(0.0, usage)),
        )


def _calls(count: float) -> int:
    """A count as the broker takes it; a sum of finite counts may be beyond all numbers."""
    return round(min(max(count, 0.0), REPORTED_CALLS_MAX))


def _first(scrape: Scrape, names: Names, fold: Callable[[list[float]], float]) -> float | None:
    for metric in names:
        found = values(scrape, metric)
        if found:
            return fold(found)
    return None
