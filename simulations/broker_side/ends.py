"""Answers of a run by slices, kept until the throttle is told of them.

A limit that nobody is near matters to nobody: what ended in several slices is told together, once a
second, while every server is far from full; else at the end of each slice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from broker.core.health.gradient import kinds_of
from broker.core.health.measured import MeasuredMany
from broker.core.health.pulse import Pulse
from broker.core.health.throttle import APART_S, Throttle, ToldMany
from pricing.book import FloatArray, IntArray
from simulations.servers.listing import Listing
from simulations.visit import BYTES_PER_TOKEN

FAR_SHARE = 0.5
"""Of the most that may ever be under way at a server. No limit comes down to that within a second,
for it goes by windows of half a second, and by little in each."""
At = tuple[FloatArray, NDArray[np.bool_]]
"""(moment, whether it was streamed) of answers."""


class Ends:
    """What a throttle is still to be told. `queue_factor` is as it has it."""

    def __init__(
        self, throttle: Throttle, pulse: Pulse, listing: Listing, queue_factor: float
    ) -> None:
        self._throttle = throttle
        self._pulse = pulse
        self._listing = listing
        servers = [listing.endpoint(number).deployment for number in range(listing.size)]
        capacity = np.array([each.capacity for each in servers], dtype=float)
        self._far = FAR_SHARE * queue_factor * capacity
        self._kept: list[tuple[NDArray[np.generic], ...]] = []

    def add(
        self, number: IntArray, sizes: tuple[IntArray, IntArray], seen: MeasuredMany, at: At
    ) -> None:
        """Take in answers by endpoint, in order of time, before they are counted out; `sizes` is
        (tokens in, tokens out)."""
        in_flight = self._pulse.in_flight
        self._kept.append((number, *sizes, *seen[:2], in_flight[number], *at))
        if self._pulse.has_limits or (in_flight[: self._far.size] > self._far).any():
            self.tell()

    def tell(self) -> None:
        """Tell the throttle of all of them."""
        if not self._kept:
            return
        columns = [np.concatenate(each) for each in zip(*self._kept, strict=True)]
        self._kept = []
        number, size_in, size_out, ttft_ms, duration_ms, under_way, at_s, streamed = columns
        kinds = kinds_of(BYTES_PER_TOKEN * size_in, np.where(streamed, 0, size_out))
        took_ms = np.where(streamed, ttft_ms, duration_ms)
        places = apart(number, at_s)
        told = [each[places].tolist() for each in (kinds, took_ms, under_way, at_s)]
        number = number[places]
        ends = np.append((number[1:] != number[:-1]).nonzero()[0] + 1, number.size).tolist()
        begin = 0
        for end in ends if places.size else ():
            many = ToldMany(*[each[begin:end] for each in told])
            self._throttle.tell_many(self._listing.endpoint(int(number[begin])), many)
            begin = end


def apart(number: IntArray, at_s: FloatArray) -> IntArray:
    """Return the places by endpoint and time; of those of an endpoint that are closer together than
    APART_S about one: more of the same say no more."""
    moment = (at_s / APART_S).astype(np.int64)
    _, places = np.unique(number * (moment.max(initial=0) + 1) + moment, return_index=True)
    return places
