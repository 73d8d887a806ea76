"""Turns a request into a `Call`: who pays, what is demanded, until when."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import msgspec

from broker.core.call import (
    Call,
    OpenAiBody,
    Payer,
    TensorBody,
    tokens_in_bound,
    tokens_in_expected,
)
from broker.core.candidates.allowance import narrowed
from broker.core.cascade import Cascade
from broker.core.catalog import Task
from broker.core.columns import AUTO
from broker.core.requirements import Requirements
from broker.core.wire.trace_context import TraceContext, begin_trace
from broker.errors import RequestMalformed, TooManyCalls
from broker.flows.runtime import Runtime
from broker.gateway.wishes import BUDGET, NO_WISHES, Wishes
from broker.settings import Limits
from broker.store.calls.call_ids import new_call_id


class Asked(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a door has read of a request, before anything of the market is known."""

    task: Task
    model: str
    wishes: Wishes
    body: OpenAiBody | TensorBody
    tokens_out_max: int | None = None
    choices: int = 1
    version: str | None = None
    longest_bytes: int | None = None
    """Of several texts at once, the longest."""


def admit(
    asked: Asked, payer: Payer, runtime: Runtime, fields: Mapping[bytes, bytes] | None = None
) -> Call:
    """Return the call; `fields` are its request's headers. Raises RequestMalformed for wishes that
    make no sense."""
    wishes = asked.wishes
    limits = runtime.settings.limits
    now_s = runtime.now_s()
    deadline_s = _within(wishes.deadline_s, limits)
    asked, cascade = begun(asked)
    if cascade is not None and wishes.quote_id is not None:
        raise _told_already(cascade)
    wanted = demands(asked, payer.account_id)
    if payer.explore is not None:
        explores = payer.explore and wishes.explore is not False
        wanted = msgspec.structs.replace(wanted, explore=explores)
    if payer.allowance is not None:
        wanted = narrowed(wanted, payer.allowance, runtime.market)
    call_id, id_text = new_call_id()
    return Call(
        call_id,
        id_text,
        payer,
        wanted,
        asked.body,
        runtime.clock(),
        now_s,
        now_s + deadline_s,
        wishes.task,
        wishes.session_id,
        msgspec.json.encode(wishes.labels).decode() if wishes.labels else None,
        cascade,
        wishes.hedge and cascade is None,
        wishes.continue_on_cut and cascade is None and wanted.stream,
        None if runtime.traces is None else _traced(fields, runtime),
    )


def _told_already(cascade: Cascade) -> RequestMalformed:
    """Return the refusal of a call on a quote that says who else is to be asked."""
    if cascade.of_models:
        return RequestMalformed(
            "'models': a call on a quote asks those that its quote was made for; leave it out."
        )
    return RequestMalformed("broker.cascade: a call on a quote is escalated as its quote says.")


def _within(wished_s: float | None, limits: Limits) -> float:
    """Return how long the call may take. Raises RequestMalformed for longer than any call may."""
    if wished_s is None:
        return limits.deadline_s
    if wished_s > limits.deadline_s_max:
        raise RequestMalformed(
            f"broker.deadline_s: a call takes {limits.deadline_s_max:,g} s at most."
        )
    return wished_s


def _traced(fields: Mapping[bytes, bytes] | None, runtime: Runtime) -> TraceContext | None:
    """Return where a call that is traced stands in its caller's trace; None: it is not drawn.

    While traces are off, the caller's `traceparent` goes to no provider: one number on all calls of
    a trace would tell strangers which belong together, and nobody has asked to be told by them.
    """
    if runtime.traces is None or not runtime.traces.sampled():
        return None
    return begin_trace((fields or {}).get(b"traceparent"), runtime.random)


def demands(asked: Asked, account_id: UUID) -> Requirements:
    """Return what is asked of an endpoint. Raises RequestMalformed."""
    wishes = asked.wishes
    body, stream = asked.body, False
    bound = expected = 0
    if isinstance(body, OpenAiBody):
        stream, expected = body.stream, tokens_in_expected(body.size_bytes)
        bound = tokens_in_bound(body.size_bytes, body.images)
    size = bound, expected, asked.tokens_out_max
    plain = (account_id, asked.task, asked.model, *size, asked.choices, asked.version)
    longest = None if asked.longest_bytes is None else tokens_in_expected(asked.longest_bytes)
    if wishes is NO_WISHES:
        return Requirements(
            *plain,
            tokens_in_longest=longest,
            stream=stream,
            preset=wishes.preset() if asked.model == AUTO else None,
        )
    rate_in, rate_out = wishes.max_rates()
    return Requirements(
        *plain,
        tokens_in_longest=longest,
        domain=wishes.domain,
        max_rate_in_micros=rate_in,
        max_rate_out_micros=rate_out,
        max_cost_nanos=wishes.max_cost_nanos(),
        quality_min=wishes.quality_min,
        latency_ms_max=wishes.latency_ms_max,
        regions=wishes.regions(),
        allow_retention=wishes.data_policy != "no_retention",
        allow_training=wishes.data_policy == "any",
        providers_only=_names(wishes.providers.only),
        providers_ignore=frozenset(wishes.providers.ignore),
        providers_order=tuple(wishes.providers.order),
        weights=wishes.weighed(),
        preset=wishes.preset(),
        value_nanos=wishes.value_nanos(),
        paced=wishes.weights == BUDGET,
        explore=bool(wishes.explore),
        stream=stream,
        quote_id=wishes.quote_id,
        tier=wishes.tier,
    )


def begun(asked: Asked) -> tuple[Asked, Cascade | None]:
    """Return what is asked first, and the cascade that is asked for. Raises RequestMalformed where
    there can be none."""
    wish = asked.wishes.cascade
    if wish is None or (cascade := wish.plan()) is None:
        return asked, None
    if not asked.task.generates or asked.choices != 1:
        raise RequestMalformed("broker.cascade, or several models: only for one answer in words.")
    if cascade.stages:
        cascade = msgspec.structs.replace(cascade, named=asked.model)
        asked = msgspec.structs.replace(asked, model=cascade.stages[0].model)
    return asked, cascade


def require_room(runtime: Runtime) -> None:
    """Shed load early: raises TooManyCalls above the limit. A broker that stops takes no more
    connections, and serves what is asked on those it has."""
    if runtime.calls_in_flight >= runtime.settings.limits.calls_in_flight_max:
        raise TooManyCalls(
            "The broker has its most calls under way.", code="overloaded", retry_after_s=1.0
        )


def _names(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
