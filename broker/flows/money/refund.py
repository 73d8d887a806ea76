"""Gives a consumer money back for a call: shared among its lines, from the broker and providers.

Nothing that was posted is changed. Compensating transfers, a numbered credit note, what the budgets
of the key get back, an entry in the audit log and events are written together. What has gone back
before is read under the row locks of all balances that the call touched, so of two refunds that do
not both fit, one is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.refund import GivenLine, left_of, share_out
from broker.errors import Conflict, NotAllowed, NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.money.wording import checked_amount, checked_reason
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.books import budget_refunds, charges, credit_notes
from broker.store.books.charges import SettledCall
from broker.store.books.credit_notes import CreditNote, Wanted
from broker.store.books.transfers import TransferKind
from broker.store.money import recourse
from broker.store.money.recourse import Ground, Taken
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import format_usd


@dataclass(frozen=True, slots=True)
class Order:
    """How much goes back and why; `amount_nanos` fits what is left of the lines it is for."""

    amount_nanos: int
    reason: str
    author: str
    at: datetime
    kind: TransferKind = TransferKind.REFUND
    dispute_id: UUID | None = None


async def refund(
    connection: AsyncConnection,
    author: Caller,
    call_id: UUID,
    amount_nanos: int | None,
    reason: str,
    now: datetime,
) -> CreditNote:
    """Refund a call by an operator's word, all that is left of its charge where no amount is given.

    Raises NotAllowed, RequestMalformed as `checked_reason` and `checked_amount` do, NotFound for a
    call that is not, Conflict with code `call_not_settled`, `nothing_charged`, `refund_too_large`.
    """
    if author.role is not Role.OPERATOR:
        raise NotAllowed("Only an operator refunds a call by hand.")
    reason = checked_reason(reason)
    call = await open_call(connection, call_id)
    amount = checked_amount(amount_nanos, left_of(call.lines))
    note = await give_back(connection, call, Order(amount, reason, author.name, now))
    detail = {"amount_usd": format_usd(amount), "credit_note": str(note.id)}
    deed = audit.Deed(author.name, "refund", f"calls/{call_id}", detail)
    await audit.record(connection, deed, now)
    return note


async def open_call(
    connection: AsyncConnection, call_id: UUID, provider_ids: Collection[UUID] | None = None
) -> SettledCall:
    """Return a call as it stands under the locks of its balances, of some providers' lines alone.

    Raises NotFound for a call that is not, Conflict with code `call_not_settled` while it is under
    way, `nothing_charged` when it cost nothing.
    """
    call = await charged_call(connection, call_id)
    providers = {each.provider_id for each in call.lines}
    purses = await recourse.purses_of(connection, providers)
    owned = [account for each in purses.values() for account in each.values()]
    takes = [each.take_id for each in call.lines]
    await recourse.lock(connection, [call.funds, *takes, *owned])
    locked = await charged_call(connection, call_id)
    return locked if provider_ids is None else locked.of(provider_ids)


async def charged_call(connection: AsyncConnection, call_id: UUID) -> SettledCall:
    """Return a call that cost something. Raises as `open_call` does."""
    if await charges.owner_of(connection, call_id) is None:
        raise NotFound("There is no such call.")
    if await charges.is_under_way(connection, call_id):
        raise Conflict("The call is under way.", code="call_not_settled")
    call = await charges.find_settled(connection, call_id)
    if call is None or not call.lines:
        raise Conflict("The call cost nothing.", code="nothing_charged")
    return call


async def give_back(connection: AsyncConnection, call: SettledCall, order: Order) -> CreditNote:
    """Move the money, write the note, tell all sides; the call is as `open_call` returned it."""
    note_id = uuid7()
    shares = share_out(order.amount_nanos, call.lines)
    ground = Ground(
        call_id=call.id,
        settled_at=call.settled_at,
        funds=call.funds,
        kind=order.kind,
        about_id=note_id,
        reason=order.reason,
        author=order.author,
        at=order.at,
    )
    taken = await _take_back(connection, shares, ground)
    columns = {
        "id": note_id,
        "account_id": call.account_id,
        "number": await credit_notes.draw_number(connection, call.account_id),
        "kind": order.kind.value,
        "call_id": call.id,
        "dispute_id": order.dispute_id,
        "amount_nanos": order.amount_nanos,
        "reason": order.reason,
        "author": order.author,
        "created_at": order.at,
        "budget_key_id": await budget_refunds.counted_for(connection, call.id, call.held_at),
    }
    await credit_notes.insert(connection, columns, shares)
    [note] = await credit_notes.find(connection, Wanted(note_id=note_id))
    await budget_refunds.give_back(
        connection, call.id, call.held_at, note.amount_nanos, note.created_at
    )
    await _tell(connection, call, note, taken)
    return note


async def _take_back(
    connection: AsyncConnection, shares: Iterable[GivenLine], ground: Ground
) -> dict[UUID, Taken]:
    """Move each side's part; return what came from which purse of each provider."""
    takes: defaultdict[UUID, int] = defaultdict(int)
    earnings: defaultdict[UUID, int] = defaultdict(int)
    for share in shares:
        takes[share.line.take_id] += share.take_nanos
        earnings[share.line.provider_id] += share.earnings_nanos
    for take_id, amount_nanos in sorted(takes.items()):
        if amount_nanos:
            await recourse.give_back_take(connection, take_id, amount_nanos, ground)
    return {
        provider_id: await recourse.claw_back(connection, provider_id, amount_nanos, ground)
        for provider_id, amount_nanos in sorted(earnings.items())
        if amount_nanos
    }


async def _tell(
    connection: AsyncConnection, call: SettledCall, note: CreditNote, taken: dict[UUID, Taken]
) -> None:
    target = f"credit_notes/{note.id}"
    common = {
        "credit_note": str(note.id),
        "call_id": str(note.call_id),
        "dispute": None if note.dispute_id is None else str(note.dispute_id),
        "reason": note.reason,
    }
    kind = f"{note.kind}.posted"
    payload = {**common, "number": note.number, "amount_usd": format_usd(note.amount_nanos)}
    await events.tell(connection, Event(kind, target, call.account_id, payload), note.created_at)
    for provider_id, part in taken.items():
        owed = {
            **common,
            "amount_usd": format_usd(part.whole_nanos),
            "owed_usd": format_usd(part.receivable_nanos),
        }
        await events.tell(connection, Event(kind, target, provider_id, owed), note.created_at)
