"""How long the calls at one origin have waited for a byte, read off its connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from broker.upstream.connection import Connection
from broker.upstream.response import WHOLE


class Silence(NamedTuple):
    """Ages in seconds."""

    heard_ago_s: float
    """Since any byte of any answer came, or the first call went there."""
    short_s: list[float]
    """Of each streamed answer to a short request, since it was asked or last heard of."""
    others: int
    """Calls whose first byte takes as long as they are: whole answers, and long requests."""


def silence_of(connections: Iterable[Connection], heard_at: float, now: float) -> Silence:
    """Look at all connections to an origin, whose last answer that is gone was heard of at the
    loop time `heard_at`."""
    short_s: list[float] = []
    others = 0
    for each in connections:
        response = each.response
        if response is None:
            continue
        if response.paused:  # it has sent more than is taken from it
            heard_at = now
        heard_at = max(heard_at, response.heard_at)
        if response.long or response.opens or response.wants == WHOLE:
            others += 1
        else:
            short_s.append(now - max(response.asked_at, response.heard_at))
    return Silence(now - heard_at, short_s, others)
