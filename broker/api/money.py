"""Balance and statement of the caller."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Controller, get
from litestar.params import QueryParameter

from broker.api.callers import TRADERS
from broker.api.parts import GivenCaller, GivenEngine
from broker.api.wire import STRETCH, Cursor, GivenStretch, Limit, Reply, from_cursor, to_cursor
from broker.flows import statement as statements
from broker.flows.statement import PurseKind
from broker.store.statements import Balance, Entry, EntryKind, Span
from pricing.money import format_usd

Purse = Annotated[PurseKind | None, QueryParameter(description="One of a provider's purses alone.")]


class BalanceShown(Reply):
    """`available` = `posted` - `held`; what is held belongs to calls under way.

    Of a provider, `posted` is all that it is due, and held what is pending or on its way to it.
    """

    posted_usd: str
    held_usd: str
    available_usd: str


class EntryShown(Reply):
    """One movement of the balance; `source` is the id of the call, the transfer or the credit note.

    `call_id` is the call that it is about.
    """

    at: datetime
    kind: EntryKind
    amount_usd: str
    source: UUID
    reason: str
    call_id: UUID | None


class Statement(Reply):
    """Entries, newest first; `cursor` asks for the page before."""

    entries: list[EntryShown]
    cursor: str | None


class MoneyController(Controller):
    """`/api/balance` and `/api/statement`"""

    guards = (TRADERS,)
    tags = ("Money",)

    @get("/balance", summary="The balance")
    async def balance(self, engine: GivenEngine, caller: GivenCaller) -> BalanceShown:
        return balance_shown(await statements.balance(engine, caller))

    @get("/statement", summary="What moved the balance", dependencies=STRETCH)
    async def statement(
        self,
        engine: GivenEngine,
        caller: GivenCaller,
        stretch: GivenStretch,
        purse: Purse = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Statement:
        span = Span(stretch.since, stretch.until, from_cursor(cursor), limit)
        entries = await statements.statement(engine, caller, span, purse)
        full = len(entries) == limit
        return Statement(
            entries=[_shown(each) for each in entries],
            cursor=to_cursor(entries[-1].at, entries[-1].source) if full else None,
        )


def balance_shown(balance: Balance) -> BalanceShown:
    """Write a balance."""
    return BalanceShown(
        posted_usd=format_usd(balance.posted_nanos),
        held_usd=format_usd(balance.held_nanos),
        available_usd=format_usd(balance.available_nanos),
    )


def _shown(entry: Entry) -> EntryShown:
    return EntryShown(
        at=entry.at,
        kind=entry.kind,
        amount_usd=format_usd(entry.amount_nanos),
        source=entry.source,
        reason=entry.reason,
        call_id=entry.call_id,
    )
