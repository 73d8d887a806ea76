"""What an attempt that has ended tells of its endpoint and of its call."""

from __future__ import annotations

from broker.core.call import Call
from broker.core.dispatch import Attempt
from broker.core.lengths import length_of
from broker.core.metering import Delivered
from broker.core.pulse import Measured


def answer_length(last: Attempt | None, call: Call) -> int | None:
    """Return the length of one of the answers that came whole, where answers are text."""
    whole = last is not None and last.outcome is not None and last.outcome.fault is None
    if last is not None and last.continues:
        return None  # it is the end of an answer, not all of it
    if last is None or not (whole and call.wanted.task.generates):
        return None
    return length_of(last.tokens_out, call.wanted.choices, last.candidate.tokens_out_max)


def ttft_ms(last: Attempt | None, call: Call) -> float | None:
    if last is None or last.first_content_s is None:
        return None
    return ((last.released_s or last.first_content_s) - call.started_s) * 1_000


def measure_of(attempt: Attempt, call: Call, delivered: Delivered, now_s: float) -> Measured:
    first_s = attempt.first_content_s or now_s
    bytes_in = bytes_out = None
    if delivered.claimed_in and attempt.tokens_in:
        bytes_in = call.body.size_bytes / attempt.tokens_in
    if delivered.claimed_out and attempt.tokens_out and delivered.text_bytes:
        bytes_out = delivered.text_bytes / attempt.tokens_out
    return Measured(
        ttft_ms=(first_s - attempt.started_s) * 1_000,
        duration_ms=(now_s - attempt.started_s) * 1_000,
        tokens_out=attempt.tokens_out,
        bytes_in_per_token=bytes_in,
        bytes_out_per_token=bytes_out,
    )
