"""Says to workers that somebody waits for cells, until nobody does.

Who waits renews a lease beside the results. Who is killed cannot call its cells off: its lease runs
out, and they end by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from broker.errors import BrokerError

LEASE_S = 120
RENEW_S = 20.0
LOOK_S = 5.0
"""How often a worker looks whether its cell is still waited for."""

Clock = Callable[[], float]
"""Seconds of a monotonic clock."""


class CellsGivenUp(BrokerError):
    """Workers gave cells up, for who waits had not said so for too long."""

    status = 503
    code = "cells_given_up"


class Lease:
    """Of who waits; `store` is Celery's backend of results, which is Valkey."""

    def __init__(self, store: Any, clock: Clock = time.monotonic) -> None:
        self.name = f"simulations-awaited-{uuid4()}"
        self._store = store
        self._clock = clock
        store.client.set(self.name, "1", ex=LEASE_S)
        self._due_s = clock() + RENEW_S

    def renew(self) -> None:
        """Say again that somebody waits, where it is time to. Raises CellsGivenUp where that is too
        late: cells that were ended are not run any more."""
        now_s = self._clock()
        if now_s < self._due_s:
            return
        self._due_s = now_s + RENEW_S
        if not self._store.client.expire(self.name, LEASE_S):
            raise CellsGivenUp(
                f"Workers were told nothing for {LEASE_S} seconds, and gave the cells up; what is "
                "done is kept, and the same command goes on from there."
            )


class Awaited:
    """Whether the cell of a worker is still waited for."""

    def __init__(self, store: Any, name: str, clock: Clock = time.monotonic) -> None:
        self._store = store
        self._name = name
        self._clock = clock
        self._told = True
        self._due_s = clock()

    def __call__(self) -> bool:
        """Look, where it is time to. Where nobody can be asked it is as it was."""
        now_s = self._clock()
        if self._told and now_s >= self._due_s:
            self._due_s = now_s + LOOK_S
            try:
                self._told = bool(self._store.client.exists(self._name))
            except self._store.connection_errors:
                return True
        return self._told
