"""Tells a call as spans, by OpenTelemetry's conventions for generative AI: one of the call, and one
of each of its attempts. Nothing of prompts and answers is in them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from broker.core.call import Call
from broker.core.catalog import Endpoint, Task
from broker.core.dispatch import Attempt
from broker.core.ledger import CallRecord
from broker.core.market import Market
from broker.core.wire.trace_context import TraceContext
from broker.outbound.traces import SERVICE, Traces
from pricing.money import format_usd

Value = str | int | float | bool

_OPERATIONS: Final = {
    Task.CHAT: "chat",
    Task.COMPLETION: "text_completion",
    Task.EMBEDDING: "embeddings",
    Task.INFER: "infer",
}
_FIRST: Final = "gen_ai.response.time_to_first_chunk"
"""In seconds."""


class Span(msgspec.Struct, frozen=True):
    """A span to be told; times are seconds of the monotonic clock."""

    trace_id: int
    span_id: int
    name: str
    started_s: float
    ended_s: float
    attributes: dict[str, Value]
    error: str | None = None
    """What kind of error it ended with."""


def trace_call(
    traces: Traces, call: Call, record: CallRecord, attempts: Sequence[Attempt], market: Market
) -> None:
    """Tell a call that ends now, if it is traced."""
    trace = call.trace
    if trace is None:
        return
    now_s = time.monotonic()
    told = [
        _span_of(call, trace, each, market.endpoint(each.candidate.number), now_s)
        for each in attempts
    ]
    number = record.endpoint_number
    served = None
    if record.code == "served" and number is not None:
        served = market.endpoint(number).name
    traces.tell(_span_of_call(call, trace, record, served, now_s), told, trace.parent_id)


def _span_of_call(
    call: Call, trace: TraceContext, record: CallRecord, served: str | None, ended_s: float
) -> Span:
    """Return the span of a whole call, as it was served to its caller by the endpoint `served`."""
    wanted = call.wanted
    operation = _OPERATIONS[wanted.task]
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": SERVICE,
        "gen_ai.request.model": wanted.model,
        "gen_ai.request.stream": wanted.stream,
        "gen_ai.usage.input_tokens": record.tokens_in,
        "gen_ai.usage.output_tokens": record.tokens_out,
        "http.response.status_code": record.status,
        "broker.call_id": call.id_text,
        "broker.price_version": record.price_version,
        "broker.charge_usd": format_usd(record.charge_nanos),
    }
    if wanted.tokens_out_max is not None:
        attributes["gen_ai.request.max_tokens"] = wanted.tokens_out_max
    if call.session_id is not None:
        attributes["gen_ai.conversation.id"] = call.session_id
    if record.ttft_ms is not None:
        attributes[_FIRST] = record.ttft_ms / 1_000
    if served is not None:
        attributes["gen_ai.response.model"] = served
    if wanted.choices != 1:
        attributes["gen_ai.request.choice.count"] = wanted.choices
    failed = record.code if record.code != "served" else None
    ids = trace.trace_id, trace.span_id
    return Span(*ids, f"{operation} {wanted.model}", call.started_s, ended_s, attributes, failed)


def _span_of(
    call: Call, trace: TraceContext, attempt: Attempt, endpoint: Endpoint, ended_s: float
) -> Span:
    operation = _OPERATIONS[call.wanted.task]
    origin = urlsplit(endpoint.deployment.url)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": endpoint.name.partition("/")[0],
        "gen_ai.request.model": endpoint.upstream_model,
        "gen_ai.request.stream": call.wanted.stream,
        "gen_ai.usage.input_tokens": attempt.tokens_in,
        "gen_ai.usage.output_tokens": attempt.tokens_out,
        "server.address": origin.hostname or "",
        "server.port": origin.port or (443 if origin.scheme == "https" else 80),
        "broker.endpoint": endpoint.name,
        "broker.attempt": attempt.index,
        "broker.hedge": attempt.hedge,
        "broker.continues": attempt.continues,
    }
    if call.wanted.stream and attempt.first_content_s is not None:
        attributes[_FIRST] = attempt.first_content_s - attempt.started_s
    outcome = attempt.outcome
    failed = outcome.fault.value if outcome is not None and outcome.fault is not None else None
    name = f"{operation} {endpoint.upstream_model}"
    ids = trace.trace_id, trace.attempt_id(attempt.index)
    return Span(*ids, name, attempt.started_s, attempt.ended_s or ended_s, attributes, failed)
