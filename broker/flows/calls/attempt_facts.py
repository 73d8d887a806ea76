"""What an attempt that has ended tells of its endpoint."""

from __future__ import annotations

from broker.core.call import Call
from broker.core.dispatch import Attempt
from broker.core.health.measured import Measured
from broker.core.health.throttle import Cut
from broker.core.metering import Delivered
from broker.core.outcome import Fault, Outcome


def measure_of(attempt: Attempt, call: Call, delivered: Delivered, now_s: float) -> Measured:
    """Return how long an attempt took that has delivered `now_s`, and what its tokens weigh where
    its provider counts them; `call` is what it was sent."""
    started_s, tokens_in, tokens_out = attempt.started_s, attempt.tokens_in, attempt.tokens_out
    bytes_in = bytes_out = None
    if tokens_in and delivered.claimed_in:
        bytes_in = call.body.size_bytes / tokens_in
    if tokens_out and delivered.claimed_out and delivered.text_bytes:
        bytes_out = delivered.text_bytes / tokens_out
    return Measured(
        ttft_ms=((attempt.first_content_s or now_s) - started_s) * 1_000,
        duration_ms=(now_s - started_s) * 1_000,
        tokens_out=tokens_out,
        bytes_in_per_token=bytes_in,
        bytes_out_per_token=bytes_out,
    )


def cut_of(attempt: Attempt, outcome: Outcome, call: Call, now_s: float) -> Cut | None:
    """Return what an attempt that was given up tells, which waits for content no more; None for one
    that ended otherwise, or began to answer."""
    if outcome.fault not in (Fault.DEADLINE, Fault.CALLER_LEFT) or not outcome.sent:
        return None
    if attempt.first_content_s is not None:
        return None
    lasted_ms = (now_s - attempt.started_s) * 1_000
    return Cut(lasted_ms, call.body.size_bytes, call.wanted.stream)
