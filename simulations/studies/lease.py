"""Says to workers that somebody waits for cells, until nobody does.

Who waits renews a lease beside the results, also while it does something else, such as writing to a
terminal that is held. Who is killed cannot call its cells off: its lease runs out, and they end by
themselves.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Self
from uuid import uuid4

from broker.errors import BrokerError

LEASE_S = 120
RENEW_S = 20.0
_FAREWELL_S: Final = 1.0
"""For a renewal under way, of which nothing depends any more."""
LOOK_S = 5.0
"""How often a worker looks whether its cell is still waited for."""

Clock = Callable[[], float]
"""Seconds of a monotonic clock."""


class CellsGivenUp(BrokerError):
    """Workers gave cells up, for who waits had not said so for too long."""

    status = 503
    code = "cells_given_up"


class Lease:
    """Of who waits; `store` is Celery's backend of results, which is Valkey. From when it is
    entered until it is left it is renewed beside whatever is done meanwhile."""

    def __init__(self, store: Any, clock: Clock = time.monotonic, every_s: float = RENEW_S) -> None:
        self.name = f"simulations-awaited-{uuid4()}"
        self._store = store
        self._clock = clock
        self._every_s = every_s
        self._until_s = clock() + LEASE_S
        store.client.set(self.name, "1", ex=LEASE_S)
        self._left = threading.Event()
        self._renewing = threading.Thread(target=self._keep, name=self.name, daemon=True)

    def __enter__(self) -> Self:
        self._renewing.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._renewing.join(_FAREWELL_S)

    def renew(self) -> None:
        """Say again that somebody waits. Where the store cannot be told, what it was told before
        holds for as long as it did."""
        now_s = self._clock()
        try:
            is_there = self._store.client.expire(self.name, LEASE_S)
        except self._store.connection_errors:
            return
        self._until_s = now_s + LEASE_S if is_there else -math.inf

    def require(self) -> None:
        """Raise CellsGivenUp where the lease has run out: cells that were ended are not run any
        more."""
        if self._clock() >= self._until_s:
            raise CellsGivenUp(
                f"Workers were told nothing for {LEASE_S} seconds, and gave the cells up; what is "
                "done is kept, and the same command goes on from there."
            )

    def _keep(self) -> None:
        while not self._left.wait(self._every_s):
            self.renew()


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
