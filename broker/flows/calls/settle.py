"""Settles a call, once: captures what was delivered, releases the rest, writes down how it went."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

import msgspec

from broker.core import ledger, story
from broker.core.call import Call
from broker.core.dispatch import Attempt
from broker.core.ledger import CallRecord
from broker.core.quality.lengths import length_of
from broker.errors import BrokerError, HoldExpired
from broker.flows.calls.tab import Tab
from broker.flows.calls.trace_call import trace_call


async def settle(tab: Tab, status: int, code: str) -> None:
    """Capture what was delivered and release the rest; durable when it returns. A call that has
    been settled stays as it is.

    Raises HoldExpired when the hold was gone (its time had run out): nothing was charged then.
    """
    if tab.is_settled:
        return
    tab.is_settled = True
    call, runtime = tab.call, tab.runtime
    if call.payer.rates is not None:
        used = sum(each.tokens_in + each.tokens_out for each in tab.dispatch.attempts)
        runtime.live.limits.give_back(call.id, used)
    if call.session_id is not None and status == 200:
        runtime.live.homes.keep(call.payer.account_id, call.session_id, tab.endpoint.number)
    # Not before its call either, which may be younger than its hold: a clock may be set back.
    now = max(runtime.clock(), call.created_at)
    closing = ledger.settlement(tab.hold, tuple(tab.lines), now, None)
    draft = partial(_record, tab, status, code, runtime.now_s())
    gone: CallRecord | None = None
    try:
        if not await runtime.ledger.settle(closing, draft):
            gone = _outlived(tab, draft())
            error = HoldExpired("The call outlived its hold and was not charged.")
            error.call_id = call.id_text
            raise error
    finally:  # not before, for the caller waits for it
        if (traces := runtime.traces) is not None and call.trace is not None:
            trace_call(traces, call, gone or draft(), tab.dispatch.attempts, tab.market)


def settle_later(tab: Tab, status: int, code: str) -> None:
    """Settle without a caller to wait for it."""
    if tab.is_settled:
        return
    task = asyncio.get_running_loop().create_task(_settle_alone(tab, status, code))
    tab.runtime.running.add(task)
    task.add_done_callback(tab.runtime.running.discard)


async def _settle_alone(tab: Tab, status: int, code: str) -> None:
    if tab.uncounted is not None:
        over, tab.uncounted = tab.uncounted, None
        await tab.end_counted(over.outcome, over.delivered, over.over_s)
    with contextlib.suppress(BrokerError):  # what it says is in the log by then
        await settle(tab, status, code)


def _outlived(tab: Tab, record: CallRecord) -> CallRecord:
    """Log a call whose hold was gone: it cost nothing, whatever was delivered."""
    tab.charge_nanos = 0
    # A hold that was ready may have been gone before its call came. No settlement is older than
    # its call: this one's record is as old as its hold, so that the books agree.
    begun_at = min(record.created_at, tab.hold.created_at)
    told = {"status": HoldExpired.status, "code": HoldExpired.code, "charge_nanos": 0}
    gone = msgspec.structs.replace(record, created_at=begun_at, **told)
    tab.runtime.ledger.record(gone)
    return gone


def _record(tab: Tab, status: int, code: str, ended_s: float) -> CallRecord:
    """Return the row of the call log; nothing of the call's content is in it."""
    call, decision, dispatch = tab.call, tab.decision, tab.dispatch
    payer, wanted, attempts = call.payer, call.wanted, dispatch.attempts
    last = tab.chosen or (attempts[-1] if attempts else None)
    tokens_in = tokens_out = 0
    for each in attempts:
        tokens_in += each.tokens_in
        tokens_out += each.tokens_out
    return CallRecord(
        id=call.id,
        created_at=call.created_at,
        account_id=payer.account_id,
        key_id=payer.key_id,
        task=wanted.task,
        model=wanted.model,
        domain=wanted.domain,
        stream=wanted.stream,
        status=status,
        code=code,
        endpoint_number=last.candidate.number if last else None,
        price_version=decision.price_version,
        hold_nanos=tab.hold.amount_nanos,
        charge_nanos=tab.charge_nanos,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        ttft_ms=_ttft_ms(last, attempts, call) if wanted.stream else None,
        duration_ms=(ended_s - call.started_s) * 1_000,
        task_label=call.task_label,
        session_id=call.session_id,
        labels_json=call.labels_json,
        story=story.encode(wanted, decision, attempts, dispatch.end or code, call.started_s),
        answer_tokens_out=_answer_length(last, call),
    )


def _ttft_ms(last: Attempt | None, attempts: Sequence[Attempt], call: Call) -> float | None:
    """Return when the first content of an answer came: not that of the last of its attempts, where
    that went on from another's."""
    heard = last
    if last is not None and last.continues:
        heard = next((each for each in attempts if each.committed), last)
    if heard is None or heard.first_content_s is None:
        return None
    return ((heard.released_s or heard.first_content_s) - call.started_s) * 1_000


def _answer_length(last: Attempt | None, call: Call) -> int | None:
    """Return the length in tokens of one of the answers that came whole, where answers are text."""
    wanted = call.wanted
    if last is None or last.outcome is None or last.outcome.fault is not None:
        return None
    if last.continues:
        return None  # it is the end of an answer, not all of it
    if not wanted.task.generates:
        return None
    return length_of(last.tokens_out, wanted.choices, last.candidate.tokens_out_max)
