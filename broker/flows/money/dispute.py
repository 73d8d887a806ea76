"""A consumer asks money back for a call: opens a dispute with those who earned, or withdraws it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.refund import left_of, share_out
from broker.errors import Conflict, NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.money.refund import charged_call
from broker.flows.money.wording import checked_amount, checked_reason
from broker.store.access import audit
from broker.store.books import charges
from broker.store.books.charges import SettledCall
from broker.store.money import disputes
from broker.store.money.disputes import Answer, Dispute, Status, Verdict, Wanted
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import format_usd

OPEN = (Status.OPEN, Status.CONTESTED)


@dataclass(frozen=True, slots=True)
class Request:
    """What a consumer asks back; all that is left of the charge where no amount is given."""

    call_id: UUID
    reason: str
    amount_nanos: int | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """How long a call can be disputed, and how long providers have to answer."""

    window: timedelta
    answer: timedelta


async def open_dispute(
    connection: AsyncConnection, caller: Caller, request: Request, times: Times, now: datetime
) -> Dispute:
    """Open a dispute over a call of the caller's.

    Raises NotFound for a call that is not the caller's, RequestMalformed and Conflict as
    `checked_reason`, `checked_amount` and `charged_call` do, Conflict with code
    `dispute_window_over`, `dispute_open` while another of the call is under way, `dispute_decided`
    once an operator has decided about the call, `dispute_withdrawn` after one that a provider had
    contested, who is not to be asked again and again until it is silent once.
    """
    reason = checked_reason(request.reason)
    call = await _own_call(connection, caller, request.call_id)
    if now >= call.settled_at + times.window:
        raise Conflict(
            f"A call can be disputed for {times.window.days} days.", code="dispute_window_over"
        )
    await _refuse_a_second(connection, request.call_id)
    asked = checked_amount(request.amount_nanos, left_of(call.lines))
    parts = _parts(call, asked)
    dispute_id = uuid7()
    columns = {
        "id": dispute_id,
        "call_id": call.id,
        "account_id": caller.account_id,
        "asked_nanos": asked,
        "reason": reason,
        "opened_at": now,
        "answer_by": now + times.answer,
    }
    if not await disputes.open_(connection, columns, parts):
        raise _already_open()
    dispute = await disputes.find(connection, dispute_id)
    assert dispute is not None
    await note_deed(connection, caller.name, "open_dispute", dispute, now)
    await tell_all(connection, "opened", dispute, now)
    return dispute


async def withdraw(
    connection: AsyncConnection, caller: Caller, dispute_id: UUID, now: datetime
) -> Dispute:
    """Withdraw the caller's dispute; what has been given back stays so.

    Raises NotFound for another's, Conflict with code `dispute_closed`.
    """
    dispute = await disputes.lock(connection, dispute_id)
    if dispute is None or dispute.account_id != caller.account_id:
        raise no_such_dispute()
    if dispute.status not in OPEN:
        raise closed_already()
    await disputes.set_status(connection, dispute_id, status=Status.WITHDRAWN.value, closed_at=now)
    await note_deed(connection, caller.name, "withdraw_dispute", dispute, now)
    return await reread(connection, dispute, "withdrawn", now)


async def reread(
    connection: AsyncConnection, dispute: Dispute, verb: str, now: datetime
) -> Dispute:
    """Return a dispute as it stands now, and tell all sides what happened to it."""
    found = await disputes.find(connection, dispute.id)
    assert found is not None, "a dispute is never deleted"
    await tell_all(connection, verb, found, now)
    return found


async def tell_all(connection: AsyncConnection, verb: str, dispute: Dispute, now: datetime) -> None:
    """Tell the consumer, and each provider of its own part."""
    target, kind = f"disputes/{dispute.id}", f"dispute.{verb}"
    common = {
        "dispute": str(dispute.id),
        "call_id": str(dispute.call_id),
        "status": dispute.status.value,
        "reason": dispute.reason,
        "answer_by": dispute.answer_by.isoformat(),
    }
    whole = {
        **common,
        "asked_usd": format_usd(dispute.asked_nanos),
        "refunded_usd": format_usd(dispute.refunded_nanos),
    }
    await events.tell(connection, Event(kind, target, dispute.account_id, whole), now)
    for part in dispute.parts:
        own = {
            **common,
            "answer": part.answer.value,
            "asked_usd": format_usd(part.asked_nanos),
            "refunded_usd": format_usd(part.refunded_nanos),
        }
        await events.tell(connection, Event(kind, target, part.provider_id, own), now)


async def note_deed(
    connection: AsyncConnection, author: str, action: str, dispute: Dispute, now: datetime
) -> None:
    """Write an entry of the audit log."""
    detail = {"call": str(dispute.call_id), "asked_usd": format_usd(dispute.asked_nanos)}
    await audit.record(
        connection, audit.Deed(author, action, f"disputes/{dispute.id}", detail), now
    )


def no_such_dispute() -> NotFound:
    """Return the refusal of a dispute that is not, or is another's."""
    return NotFound("There is no such dispute.")


def closed_already() -> Conflict:
    """Return the refusal of a word that comes too late."""
    return Conflict("The dispute is closed.", code="dispute_closed")


async def _own_call(connection: AsyncConnection, caller: Caller, call_id: UUID) -> SettledCall:
    if await charges.owner_of(connection, call_id) != caller.account_id:
        raise NotFound("There is no such call.")
    return await charged_call(connection, call_id)


async def _refuse_a_second(connection: AsyncConnection, call_id: UUID) -> None:
    for former in await disputes.list_disputes(connection, Wanted(call_id=call_id)):
        if former.status in OPEN:
            raise _already_open()
        if former.verdict in (Verdict.UPHELD, Verdict.REJECTED):
            raise Conflict(
                "An operator has decided about this call.",
                code="dispute_decided",
                facts={"dispute": str(former.id)},
            )
        if former.status is Status.WITHDRAWN and former.having(Answer.CONTESTED):
            raise Conflict(
                "You have withdrawn a dispute of this call that was contested.",
                code="dispute_withdrawn",
                facts={"dispute": str(former.id)},
            )


def _already_open() -> Conflict:
    return Conflict("A dispute of this call is under way.", code="dispute_open")


def _parts(call: SettledCall, asked_nanos: int) -> dict[UUID, int]:
    parts: defaultdict[UUID, int] = defaultdict(int)
    for share in share_out(asked_nanos, call.lines):
        parts[share.line.provider_id] += share.amount_nanos
    return dict(parts)
