"""How a worker goes on when its connection to Valkey breaks: it connects anew.

Celery first lets go of the broken connection and then closes it. Where a job is not acknowledged
yet, closing asks for the address of what was let go of, and the worker would end by that.
"""

from __future__ import annotations

import warnings
from contextlib import suppress

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer


class Reconnecting(Consumer):  # type: ignore[misc]  # Celery ships no types
    """Celery's reader of messages, but for how it lets go of a broken connection."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close what is broken; what cannot be closed any more is gone already. Celery's advice on
        a setting of its own, which it gives each time, tells operators nothing."""
        with suppress(AttributeError), warnings.catch_warnings():
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
