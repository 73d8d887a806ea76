"""Balance and statement of the caller."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import Controller, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter
from msgspec import UNSET, UnsetType
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.api import tables
from broker.api.callers import TRADERS
from broker.api.long_reads import LONG_AS_TABLE
from broker.api.parts import CallerRequest, GivenCaller, GivenEngine
from broker.api.receipts.signed import ReceiptsShown, receipts_shown
from broker.api.tables import AskedForm, Form, form_of
from broker.api.wire import (
    STRETCH,
    Cursor,
    GivenStretch,
    Limit,
    Reply,
    Stretch,
    from_cursor,
    to_cursor,
)
from broker.flows.access.authenticate import Caller
from broker.flows.money import statement as statements
from broker.flows.money.statement import PurseKind
from broker.store.access.accounts import Role
from broker.store.books.statements import Balance, Entry, EntryKind, Place, Span
from pricing.money import format_usd

Purse = Annotated[PurseKind | None, QueryParameter(description="One of a provider's purses alone.")]


class BalanceShown(Reply):
    """`available` = `posted` - `held`; what is held belongs to calls under way.

    Of a provider, `posted` is all that it is due; `held` is what `GET /api/earnings` tells apart as
    `pending_usd` and `in_transit_usd`.
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
    """Entries, newest first; `cursor` asks for the page before.

    A provider reads in `receipts` which of its deployments sign what they served.
    """

    entries: list[EntryShown]
    cursor: str | None
    receipts: list[ReceiptsShown] | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a statement."""

    purse: PurseKind | None
    place: Place | None
    limit: int


def asked_page(purse: Purse = None, limit: Limit = 100, cursor: Cursor = None) -> Page:
    """Read what part is asked for; a dependency of the statement."""
    return Page(purse, from_cursor(cursor), limit)


GivenPage = NamedDependency[Page]
PAGE = {**STRETCH, "page": Provide(asked_page, sync_to_thread=False)}
_COLUMNS = ("at", "kind", "amount_usd", "source", "reason", "call_id")


class MoneyController(Controller):
    """`/api/balance` and `/api/statement`"""

    guards = (TRADERS,)
    tags = ("Money",)

    @get("/balance", summary="The balance")
    async def balance(self, engine: GivenEngine, caller: GivenCaller) -> BalanceShown:
        return balance_shown(await statements.balance(engine, caller))

    @get("/statement", summary="What moved the balance", dependencies={**PAGE, **LONG_AS_TABLE})
    async def statement(
        self,
        request: CallerRequest,
        engine: GivenEngine,
        caller: GivenCaller,
        stretch: GivenStretch,
        page: GivenPage,
        form: AskedForm = None,
    ) -> Statement | Response[str]:
        """As JSON page by page, newest first; as CSV all of it, oldest first."""
        return await tell_statement(engine, caller, stretch, page, form_of(request, form))


async def tell_statement(
    engine: AsyncEngine, owner: Caller, stretch: Stretch, page: Page, form: Form
) -> Statement | Response[str]:
    """Write a statement: as JSON the page, as CSV all of it."""
    if form is Form.CSV:
        whole = Span(stretch.since, stretch.until)
        entries = statements.every_entry(engine, owner, whole, page.purse)
        lines = [tables.line(_COLUMNS), *[_line(each) async for each in entries]]
        return tables.answer(lines, "statement.csv")
    span = Span(stretch.since, stretch.until, page.place, page.limit)
    found = await statements.statement(engine, owner, span, page.purse)
    full = len(found) == page.limit
    is_provider = owner.role is Role.PROVIDER
    return Statement(
        entries=[_shown(each) for each in found],
        cursor=to_cursor(found[-1].at, found[-1].source) if full else None,
        receipts=await receipts_shown(engine, owner) if is_provider else UNSET,
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


def _line(entry: Entry) -> str:
    return tables.line(
        (
            entry.at.isoformat().replace("+00:00", "Z"),  # as everywhere under /api
            entry.kind.value,
            format_usd(entry.amount_nanos),
            entry.source,
            tables.words(entry.reason),
            entry.call_id,
        )
    )
