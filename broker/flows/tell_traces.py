"""Says that spans do not arrive in our own words: the exporter logs each try of each batch."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from broker.flows.outage import Outage
from broker.outbound.traces import Traces

_LIBRARY: Final = "opentelemetry"


class _Exporter(logging.Handler):
    """Hears what the library logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._outage = Outage(
            "traces_not_sent",
            "traces_sent_again",
            "calls are served, but their spans are lost: see whether the collector that"
            " OTEL_EXPORTER_OTLP_ENDPOINT names takes them",
        )

    def emit(self, record: logging.LogRecord) -> None:
        self._outage.met(record.getMessage().partition("\n")[0])


def tell_troubles() -> None:
    """Have what the library logs in this process told as that."""
    logger = logging.getLogger(_LIBRARY)
    logger.handlers = [_Exporter()]
    logger.propagate = False


async def send_last_spans(traces: Traces) -> None:
    """Send what waits, and end; takes some seconds where nobody takes it."""
    await asyncio.to_thread(traces.close)
