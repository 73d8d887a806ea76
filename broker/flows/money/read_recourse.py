"""Tells of credit notes and disputes: consumers of their own, providers of their part, operators
of all."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.money.dispute import no_such_dispute
from broker.store.access.accounts import Role
from broker.store.books import credit_notes
from broker.store.books.credit_notes import CreditNote
from broker.store.money import disputes
from broker.store.money.disputes import Dispute, Status


async def list_credit_notes(
    engine: AsyncEngine,
    caller: Caller,
    *,
    call_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> list[CreditNote]:
    """Return notes, newest first; a provider's with its own lines alone."""
    consumer, provider = _sides(caller)
    wanted = credit_notes.Wanted(consumer, provider, call_id, None, before)
    async with engine.connect() as connection:
        return await credit_notes.find(connection, wanted, limit)


async def read_credit_note(engine: AsyncEngine, caller: Caller, note_id: UUID) -> CreditNote:
    """Return a note. Raises NotFound for another's."""
    consumer, provider = _sides(caller)
    wanted = credit_notes.Wanted(consumer, provider, note_id=note_id)
    async with engine.connect() as connection:
        for note in await credit_notes.find(connection, wanted):
            return note
    raise NotFound("There is no such credit note.")


async def list_disputes(
    engine: AsyncEngine,
    caller: Caller,
    *,
    status: Status | None,
    before: UUID | None,
    limit: int,
) -> list[Dispute]:
    """Return disputes, newest first; a provider's with its own part alone."""
    consumer, provider = _sides(caller)
    wanted = disputes.Wanted(consumer, provider, status, before=before)
    async with engine.connect() as connection:
        return await disputes.list_disputes(connection, wanted, limit)


async def read_dispute(engine: AsyncEngine, caller: Caller, dispute_id: UUID) -> Dispute:
    """Return a dispute. Raises NotFound for another's."""
    consumer, provider = _sides(caller)
    wanted = disputes.Wanted(consumer, provider, dispute_id=dispute_id)
    async with engine.connect() as connection:
        for dispute in await disputes.list_disputes(connection, wanted):
            return dispute
    raise no_such_dispute()


def _sides(caller: Caller) -> tuple[UUID | None, UUID | None]:
    """Return whose view it is: a consumer's, a provider's, or, both None, an operator's."""
    return (
        caller.account_id if caller.role is Role.CONSUMER else None,
        caller.account_id if caller.role is Role.PROVIDER else None,
    )
