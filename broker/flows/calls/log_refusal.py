"""Logs a call that was refused before it was dispatched."""

from __future__ import annotations

from broker.core import story
from broker.core.call import Call
from broker.core.decision import Decision
from broker.core.ledger import CallRecord
from broker.errors import BrokerError
from broker.flows.runtime import Runtime


def log_refusal(
    error: BrokerError, call: Call, decision: Decision, runtime: Runtime
) -> BrokerError:
    """Write down the call and its story, none of its content; return the error for it."""
    wanted = call.wanted
    record = CallRecord(
        id=call.id,
        created_at=call.created_at,
        account_id=call.payer.account_id,
        key_id=call.payer.key_id,
        task=wanted.task,
        model=wanted.model,
        domain=wanted.domain,
        stream=wanted.stream,
        status=error.status,
        code=error.code,
        endpoint_number=None,
        price_version=decision.price_version,
        hold_nanos=0,
        charge_nanos=0,
        tokens_in=0,
        tokens_out=0,
        ttft_ms=None,
        duration_ms=(runtime.now_s() - call.started_s) * 1_000,
        task_label=call.task_label,
        session_id=call.session_id,
        labels_json=call.labels_json,
        story=story.encode(wanted, decision, [], error.code, call.started_s),
    )
    runtime.ledger.record(record)
    error.call_id = call.id_text
    return error
