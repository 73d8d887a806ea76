"""Makes the row of the call log of a call that was refused before it was dispatched."""

from __future__ import annotations

import msgspec

from broker.core import story
from broker.core.call import Call
from broker.core.decision import Decision
from broker.core.ledger import CallRecord
from broker.errors import BrokerError
from broker.flows.runtime import Runtime


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How a call ended: the HTTP status and code its caller saw, and why."""

    status: int
    code: str
    price_version: int
    duration_ms: float
    story: bytes


def log_call(call: Call, ending: Ending) -> CallRecord:
    """Return the row; nothing of the call's content is in it."""
    wanted = call.wanted
    return CallRecord(
        id=call.id,
        created_at=call.created_at,
        account_id=call.payer.account_id,
        key_id=call.payer.key_id,
        task=wanted.task,
        model=wanted.model,
        domain=wanted.domain,
        stream=wanted.stream,
        status=ending.status,
        code=ending.code,
        endpoint_number=None,
        price_version=ending.price_version,
        hold_nanos=0,
        charge_nanos=0,
        tokens_in=0,
        tokens_out=0,
        ttft_ms=None,
        duration_ms=ending.duration_ms,
        task_label=call.task_label,
        session_id=call.session_id,
        labels_json=call.labels_json,
        story=ending.story,
    )


def log_refusal(
    error: BrokerError, call: Call, decision: Decision, runtime: Runtime
) -> BrokerError:
    """Keep the story of a call that was refused before it was dispatched; return the error."""
    duration_ms = (runtime.now_s() - call.started_s) * 1_000
    told = story.encode(call.wanted, decision, [], error.code, call.started_s)
    ending = Ending(error.status, error.code, decision.price_version, duration_ms, told)
    runtime.ledger.record(log_call(call, ending))
    error.call_id = call.id_text
    return error
