"""What an attempt that has ended tells of its endpoint and of its call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from broker.core.call import Call
from broker.core.catalog import Endpoint
from broker.core.dispatch import Attempt
from broker.core.health.measured import Measured
from broker.core.health.throttle import Cut
from broker.core.metering import Delivered
from broker.core.outcome import Fault, Outcome
from broker.core.quality.lengths import length_of

if TYPE_CHECKING:
    from broker.flows.calls.tab import Tab


def answer_length(last: Attempt | None, call: Call) -> int | None:
    """Return the length of one of the answers that came whole, where answers are text."""
    wanted = call.wanted
    if last is None or last.outcome is None or last.outcome.fault is not None:
        return None
    if last.continues:
        return None  # it is the end of an answer, not all of it
    if not wanted.task.generates:
        return None
    return length_of(last.tokens_out, wanted.choices, last.candidate.tokens_out_max)


def ttft_ms(last: Attempt | None, attempts: Sequence[Attempt], call: Call) -> float | None:
    """Return when the first content of an answer came: not that of the last of its attempts, where
    that went on from another's."""
    heard = last
    if last is not None and last.continues:
        heard = next((each for each in attempts if each.committed), last)
    if heard is None or heard.first_content_s is None:
        return None
    return ((heard.released_s or heard.first_content_s) - call.started_s) * 1_000


def measure_of(attempt: Attempt, call: Call, delivered: Delivered, now_s: float) -> Measured:
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


def learn_from(
    tab: Tab, attempt: Attempt, endpoint: Endpoint, delivered: Delivered, now_s: float
) -> Measured:
    """Tell of an attempt that delivered how long it took, for limits and tails; return it for the
    pulse."""
    runtime, asked, streamed = tab.runtime, tab.asked, tab.call.wanted.stream
    measured = measure_of(attempt, asked, delivered, now_s)
    size = (asked.body.size_bytes, attempt.tokens_out)
    runtime.throttle.tell(endpoint, size, measured, now_s, streamed=streamed)
    runtime.tails.tell(endpoint.number, measured.ttft_ms, streamed=streamed)
    return measured


def cut_of(attempt: Attempt, outcome: Outcome, call: Call, now_s: float) -> Cut | None:
    """Return what an attempt that was given up tells, which waits for content no more; None for one
    that ended otherwise, or began to answer."""
    if outcome.fault not in (Fault.DEADLINE, Fault.CALLER_LEFT) or not outcome.sent:
        return None
    if attempt.first_content_s is not None:
        return None
    lasted_ms = (now_s - attempt.started_s) * 1_000
    return Cut(lasted_ms, call.body.size_bytes, call.wanted.stream)
