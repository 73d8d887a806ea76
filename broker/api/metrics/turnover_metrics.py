"""What calls took and came to, read when it is scraped.

All label sets are bounded: tasks are four, and one for money without a call's record; outcomes are
four, as `broker.core.money.turnover.outcome_of` has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.core.money.turnover import Sums, Turnover

NANOS_PER_USD: Final = 1_000_000_000


class TurnoverCollector(Collector):
    """Reads the sums of one process."""

    def __init__(self, turnover: Turnover) -> None:
        self._turnover = turnover

    def collect(self) -> Iterable[Metric]:
        """Yield all of them."""
        yield from self._durations()
        for name, text, nanos in _MONEY:
            money = CounterMetricFamily(name, text, labels=["task"])
            for task, sums in sorted(self._turnover.sums.items()):
                money.add_metric([task], nanos(sums) / NANOS_PER_USD)
            yield money
        tokens = CounterMetricFamily(
            "broker_tokens",
            "Tokens as metered, of all attempts of a call, whether or not they were paid.",
            labels=["task", "direction"],
        )
        for task, sums in sorted(self._turnover.sums.items()):
            tokens.add_metric([task, "in"], sums.tokens_in)
            tokens.add_metric([task, "out"], sums.tokens_out)
        yield tokens

    def _durations(self) -> Iterator[Metric]:
        calls = HistogramMetricFamily(
            "broker_call_seconds",
            "How long calls took from their admission until their end was in the books, by outcome:"
            " served, refused (4xx), failed (5xx, or broke off after content), left (by callers).",
            labels=["task", "outcome"],
        )
        for (task, outcome), lasted in sorted(self._turnover.lasted.items()):
            calls.add_metric([task, outcome], lasted.buckets(), lasted.sum_s)
        yield calls
        firsts = HistogramMetricFamily(
            "broker_first_content_seconds",
            "How long callers of streams waited for the first content, from their admission.",
            labels=["task"],
        )
        for task, first in sorted(self._turnover.first_content.items()):
            firsts.add_metric([task], first.buckets(), first.sum_s)
        yield firsts


_MONEY: tuple[tuple[str, str, Callable[[Sums], int]], ...] = (
    (
        "broker_charged_usd",
        "Charged to consumers for calls, in USD; what was refunded later is not taken off.",
        lambda sums: sums.charged_nanos,
    ),
    (
        "broker_take_usd",
        "The broker's take of what was charged, in USD.",
        lambda sums: sums.take_nanos,
    ),
    (
        "broker_provider_earnings_usd",
        "The providers' part of what was charged, in USD.",
        lambda sums: sums.earnings_nanos,
    ),
)
