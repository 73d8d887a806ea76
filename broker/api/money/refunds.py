"""Refunds by an operator's word, and the credit notes of all that went back."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import OPERATORS
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenEngine, GivenTime
from broker.api.wire import After, Body, Limit, Reply
from broker.flows.access.authenticate import Caller
from broker.flows.money.read_recourse import list_credit_notes, read_credit_note
from broker.flows.money.refund import refund
from broker.store.access.accounts import Role
from broker.store.books.credit_notes import CreditNote, NotedLine
from pricing.money import format_usd, parse_usd_nanos


class RefundWanted(Body):
    """What of a call's charge goes back, all that is left of it where no amount is given."""

    reason: str
    amount_usd: str | None = None


class CreditLine(Reply):
    """What of one attempt's charge went back; `take_usd` and `earnings_usd` make it up."""

    attempt: int
    endpoint: str | None
    amount_usd: str
    take_usd: str
    earnings_usd: str


class CreditNoteShown(Reply):
    """Money that went back for a call; a provider is told of its own lines alone."""

    id: UUID
    number: str
    created_at: datetime
    kind: str
    account: str | None
    call_id: UUID
    dispute_id: UUID | None
    amount_usd: str
    reason: str
    author: str
    lines: list[CreditLine]


class CreditNoteList(Reply):
    """Credit notes, newest first; `cursor` asks for the page before."""

    credit_notes: list[CreditNoteShown]
    cursor: UUID | None


class RefundController(Controller):
    """`/api/calls/{id}/refunds` and `/api/credit-notes`"""

    tags = ("Recourse",)

    @post("/calls/{call_id:uuid}/refunds", summary="Refund a call", guards=[OPERATORS])
    async def refund(
        self,
        call_id: FromPath[UUID],
        data: JSONBody[RefundWanted],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[CreditNoteShown]:
        amount = parse_amount(data.amount_usd)

        async def act(connection: AsyncConnection) -> CreditNoteShown:
            note = await refund(connection, caller, call_id, amount, data.reason, now)
            return credit_note_shown(note, caller)

        return await once(act)

    @get("/credit-notes", summary="What went back, to whom and why")
    async def list(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        call_id: FromQuery[UUID | None] = None,
        limit: Limit = 100,
        cursor: After = None,
    ) -> CreditNoteList:
        notes = await list_credit_notes(engine, caller, call_id=call_id, before=cursor, limit=limit)
        return CreditNoteList(
            credit_notes=[credit_note_shown(each, caller) for each in notes],
            cursor=notes[-1].id if len(notes) == limit else None,
        )

    @get("/credit-notes/{note_id:uuid}", summary="A credit note")
    async def read(
        self, engine: GivenEngine, caller: GivenCaller, note_id: FromPath[UUID]
    ) -> CreditNoteShown:
        return credit_note_shown(await read_credit_note(engine, caller, note_id), caller)


def parse_amount(amount_usd: str | None) -> int | None:
    """Return an amount in nano-dollars, None where none is given. Raises MoneyError."""
    return None if amount_usd is None else parse_usd_nanos(amount_usd)


def credit_note_shown(note: CreditNote, caller: Caller) -> CreditNoteShown:
    """Write a note; who bought is none of a provider's affairs."""
    bought = caller.role is not Role.PROVIDER
    amount_nanos = note.amount_nanos if bought else sum(each.amount_nanos for each in note.lines)
    return CreditNoteShown(
        id=note.id,
        number=note.title if bought else str(note.id),
        created_at=note.created_at,
        kind=note.kind,
        account=note.account if bought else None,
        call_id=note.call_id,
        dispute_id=note.dispute_id,
        amount_usd=format_usd(amount_nanos),
        reason=note.reason,
        author=note.author,
        lines=[_line(each) for each in note.lines],
    )


def _line(line: NotedLine) -> CreditLine:
    return CreditLine(
        attempt=line.attempt,
        endpoint=line.endpoint,
        amount_usd=format_usd(line.amount_nanos),
        take_usd=format_usd(line.take_nanos),
        earnings_usd=format_usd(line.earnings_nanos),
    )
