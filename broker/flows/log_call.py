"""Makes the row of the call log from a call and how it ended."""

from __future__ import annotations

import msgspec

from broker.core.call import Call
from broker.core.ledger import CallRecord


class Ending(msgspec.Struct, frozen=True, gc=False):
    """How a call ended: the HTTP status and code its caller saw, and what it came to."""

    status: int
    code: str
    price_version: int
    duration_ms: float
    story: bytes
    endpoint_number: int | None = None
    """Of the last attempt."""
    hold_nanos: int = 0
    charge_nanos: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    ttft_ms: float | None = None
    answer_tokens_out: int | None = None


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
        endpoint_number=ending.endpoint_number,
        price_version=ending.price_version,
        hold_nanos=ending.hold_nanos,
        charge_nanos=ending.charge_nanos,
        tokens_in=ending.tokens_in,
        tokens_out=ending.tokens_out,
        ttft_ms=ending.ttft_ms,
        duration_ms=ending.duration_ms,
        task_label=call.task_label,
        session_id=call.session_id,
        labels_json=call.labels_json,
        story=ending.story,
        answer_tokens_out=ending.answer_tokens_out,
    )
