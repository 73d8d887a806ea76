"""When an answer is too late, in the phase that it is in, and what is said of it then."""

from __future__ import annotations

from typing import Final

from broker.core.outcome import Fault, Outcome
from broker.upstream.response import Response

TICK_S: Final = 0.002
"""Timers of the loop count in milliseconds and may fire that much early."""

SLOWEST_BYTES_PER_S: Final = 4_096


def heard_at(response: Response, arrived_bytes: int, now: float) -> float:
    """Return when an answer of which `arrived_bytes` came `now` was last heard of.

    An answer of a known length was ready before it was sent: there, each piece counts for as long
    as it takes at the slowest rate, so that no provider holds a call up by single bytes. What is
    made while it is sent takes its time.
    """
    if response.sized is None:
        if response.status:
            response.sized = response.header(b"content-length") is not None
    elif response.sized:
        return min(now, response.heard_at + arrived_bytes / SLOWEST_BYTES_PER_S)
    return now


def due_at(response: Response) -> float:
    """Return the loop time at which the present phase of an answer is too late."""
    if not response.status:
        return min(response.asked_at + response.timeouts.first_byte_s, response.total_due)
    if response.paused:  # it is we who keep the provider waiting
        return response.total_due
    return min(response.heard_at + response.timeouts.idle_s, response.total_due)


def too_late(response: Response, now: float) -> Outcome:
    """Return which of its times an answer has overstepped at the loop time `now`."""
    status = response.status or None
    if now + TICK_S >= response.total_due:
        return Outcome(Fault.TOTAL_TIMEOUT, status=status, detail="the whole took too long")
    if status is None:
        return Outcome(Fault.FIRST_BYTE_TIMEOUT, detail="no answer in time")
    return Outcome(Fault.IDLE_TIMEOUT, status=status, detail="the answer stopped coming")
