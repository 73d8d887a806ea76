"""How long the calls at one origin have waited for a byte, read off its connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from broker.upstream.connection import Connection
from broker.upstream.response import WHOLE


class Silence(NamedTuple):
    """Ages in seconds."""

    heard_ago_s: float
    """Since any byte of any answer came."""
    whole_s: list[float]
    """Of each call whose answer is read whole, since it was asked or last heard of."""
    streamed_s: list[float]
    """The same of the others."""


def silence_of(connections: Iterable[Connection], heard_at: float, now: float) -> Silence:
    """Look at all connections to an origin, from which some that are gone were heard of at the loop
    time `heard_at`."""
    whole_s: list[float] = []
    streamed_s: list[float] = []
    for each in connections:
        heard_at = max(heard_at, each.idle_since)
        response = each.response
        if response is None:
            continue
        if response.paused:  # it has sent more than is taken from it
            heard_at = now
        heard_at = max(heard_at, response.heard_at)
        age_s = now - max(response.asked_at, response.heard_at)
        (whole_s if response.wants == WHOLE else streamed_s).append(age_s)
    return Silence(now - heard_at, whole_s, streamed_s)
