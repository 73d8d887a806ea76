"""Sets up logging for a process: one line of key=value an event, tracebacks without locals."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging() -> None:
    """Log to the process's own standard error, whatever stands in its place for a while; a second
    time changes nothing. Locals are never shown: they may hold keys or prompts."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", "event"], bool_as_flag=False
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.__stderr__ or sys.stderr),
        cache_logger_on_first_use=True,
    )
