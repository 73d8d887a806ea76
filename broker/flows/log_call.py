"""Makes the row of the call log of a call that was refused before it was dispatched."""

from __future__ import annotations

import msgspec

from broker.core.call import Call
from broker.core.ledger import CallRecord


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
