"""Says that spans do not arrive in our own words: the exporter logs each try of each batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from broker.flows.process.outage import Outage
from broker.outbound.traces import Traces, open_traces

_LIBRARY: Final = "opentelemetry"


class _Troubles(logging.Handler):
    """Hears what the library logs while spans do not arrive."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.outage = Outage(
            "traces_not_sent",
            "traces_sent_again",
            "calls are served, but their spans are lost: see whether the collector that"
            " OTEL_EXPORTER_OTLP_ENDPOINT names takes them",
        )

    def emit(self, record: logging.LogRecord) -> None:
        self.outage.met(record.getMessage().partition("\n")[0])


def open_told_traces(share: float, chance: Callable[[], float]) -> Traces | None:
    """Open the traces of a share of the calls, None for none, and have what the library logs in
    this process told in our words. Raises as `open_traces` does."""
    if not share:
        return None
    troubles, logger = _Troubles(), logging.getLogger(_LIBRARY)
    logger.handlers = [troubles]
    logger.propagate = False
    return open_traces(share, chance, troubles.outage.over)


async def send_last_spans(traces: Traces) -> None:
    """Send what waits, and end; takes some seconds where nobody takes it."""
    await asyncio.to_thread(traces.close)
