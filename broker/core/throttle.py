"""Limits the calls at each endpoint to what it turns out to manage, whatever its provider declares.

The limits stand in the pulse, where routing finds them: an endpoint at its limit is full.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from broker.core.catalog import Endpoint
from broker.core.gradient import Gradient, kind_of
from broker.core.outcome import Fault, Outcome
from broker.core.pulse import Measured, Pulse

UNLIMITED: Final = np.inf


class Throttle:
    """The limits of one process's endpoints; all processes learn from their own calls, and count
    those of all."""

    def __init__(self, pulse: Pulse, queue_factor: float) -> None:
        """`queue_factor` x capacity is the most that is ever under way, so no limit is above."""
        self._pulse = pulse
        self._queue_factor = queue_factor
        self._gradients: dict[int, Gradient] = {}
        """By endpoint number."""

    def limited(self) -> int:
        """Return how many endpoints are limited now."""
        return sum(each.limit < each.most for each in self._gradients.values())

    def tell(
        self,
        endpoint: Endpoint,
        size: tuple[int, int],
        measured: Measured,
        now_s: float,
    ) -> None:
        """Be told of an attempt that delivered, before it is counted out; `size` is of its request
        in bytes and of its answer in tokens."""
        number = endpoint.number
        gradient = self._gradients.get(number)
        if gradient is None:
            gradient = self._begin(endpoint, now_s)
        under_way = self._pulse.load_of(endpoint.deployment.number)
        kind = kind_of(size[0], size[1])
        if gradient.tell(kind, measured.duration_ms, under_way, now_s):
            self._set(number, gradient)

    def refused(self, endpoint: Endpoint, outcome: Outcome, now_s: float) -> None:
        """Be told of an attempt that failed, before it is counted out."""
        if outcome.fault is not Fault.OVERLOADED or outcome.status != 429:
            return  # a 503 is of a server that is starting, or ill
        gradient = self._gradients.get(endpoint.number) or self._begin(endpoint, now_s)
        if gradient.refused(self._pulse.load_of(endpoint.deployment.number)):
            self._set(endpoint.number, gradient)

    def _begin(self, endpoint: Endpoint, now_s: float) -> Gradient:
        most = endpoint.deployment.capacity * self._queue_factor
        self._gradients[endpoint.number] = made = Gradient(most, now_s)
        return made

    def _set(self, number: int, gradient: Gradient) -> None:
        full = gradient.limit >= gradient.most
        self._pulse.set_limit(number, UNLIMITED if full else gradient.limit)
