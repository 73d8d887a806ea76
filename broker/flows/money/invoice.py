"""Tells an account's month: what it began with, what moved it, what it ended with.

A month is closed an hour after its end, when nothing can be dated into it any more (see
`broker.flows.books.seal`). From then on its invoice stands, numbered, as it was first told; what
comes later, such as a refund, is in the month in which it happens. Every month since the account
was opened has one, each going on where the one before it ended.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import BrokerError, NotFound
from broker.flows.access.authenticate import Caller
from broker.flows.books.seal import AGE_MIN
from broker.store import maintenance
from broker.store.access import accounts as account_store
from broker.store.access.accounts import Account, Role
from broker.store.books.statement_totals import By, Grouping, Sums, Totals, Whose, read_totals
from broker.store.books.statements import Span
from broker.store.money import invoices, purses
from broker.store.money.invoices import Invoice
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import format_usd

_log = structlog.get_logger()


async def read_invoice(engine: AsyncEngine, caller: Caller, month: date, now: datetime) -> Invoice:
    """Return the invoice of the month that begins on the day `month`, issued now if it is due.

    While the month is open, as it stands now and without a number. Raises NotFound for an operator
    and for a month that has not begun, or was over when the account was opened.
    """
    async with engine.begin() as connection:
        account = await account_store.by_id(connection, caller.account_id)
        first = _first_month(account)
        if not first <= month <= _month_of(now):
            raise NotFound("There is no such month of this account.")
        await invoices.serialize(connection, account.id)
        found = await invoices.find(connection, account.id, month)
        if found is not None:
            return found
        before = await _issue(connection, account, month, now)
        if before is not None and before.month == month:
            return before
        return await _draw(connection, account, month, before)


async def list_invoices(engine: AsyncEngine, caller: Caller, now: datetime) -> list[Invoice]:
    """Return all closed months, newest first, issuing what is due. Raises NotFound for an
    operator."""
    async with engine.begin() as connection:
        account = await account_store.by_id(connection, caller.account_id)
        _first_month(account)
        await invoices.serialize(connection, account.id)
        await _issue(connection, account, _month_of(now), now)
        return await invoices.list_invoices(connection, account.id)


async def issue_due(engine: AsyncEngine, now: datetime, limit: int = 1_000) -> int:
    """Issue the last closed month of every account that lacks it; return how many, at most
    `limit`."""
    month = _month_before(_month_of(now - AGE_MIN))
    async with engine.connect() as connection:
        due = await invoices.accounts_without(connection, month, _end(month), limit)
    issued = 0
    for account_id in due:
        try:
            async with engine.begin() as connection:
                account = await account_store.by_id(connection, account_id)
                await invoices.serialize(connection, account_id)
                await _issue(connection, account, month, now)
            issued += 1
        except BrokerError as error:
            # One account that cannot be told must not keep all others waiting.
            _log.error("invoice_not_issued", account=str(account_id), error=error.detail)
    return issued


async def _issue(
    connection: AsyncConnection, account: Account, until: date, now: datetime
) -> Invoice | None:
    """Issue every closed month up to the month `until` that has no invoice; return the last.

    By the database's clock too, for by that one is dated what moves a balance.
    """
    now = min(now, await maintenance.time(connection))
    last = await invoices.last(connection, account.id)
    month = _first_month(account) if last is None else _end(last.month).date()
    while month <= until and now >= _end(month) + AGE_MIN:
        drawn = await _draw(connection, account, month, last)
        number = 1 if last is None or last.number is None else last.number + 1
        last = Invoice(
            drawn.account_id,
            month,
            number,
            drawn.opening_nanos,
            drawn.closing_nanos,
            drawn.content,
            now,
        )
        await invoices.insert(connection, last)
        await _tell(connection, last, now)
        month = _end(month).date()
    return last


async def _tell(connection: AsyncConnection, invoice: Invoice, now: datetime) -> None:
    payload = {
        "month": f"{invoice.month:%Y-%m}",
        "number": invoice.number,
        "opening_usd": format_usd(invoice.opening_nanos),
        "closing_usd": format_usd(invoice.closing_nanos),
    }
    target = f"invoices/{invoice.account_id}/{invoice.month:%Y-%m}"
    await events.tell(connection, Event("invoice.issued", target, invoice.account_id, payload), now)


async def _draw(
    connection: AsyncConnection, account: Account, month: date, before: Invoice | None
) -> Invoice:
    span = Span(_begin(month), _end(month))
    whose = await _whose(connection, account)
    sums = await read_totals(connection, whose, Grouping(By.ENDPOINT), span)
    content = {
        "account": account.name,
        "role": account.role.value,
        "endpoints": _by_endpoint(sums),
        "transfers": await _transfers(connection, whose, span),
        "credit_notes": await _notes(connection, account, span),
        "sums": _shown(sums.whole),
    }
    opening = 0 if before is None else before.closing_nanos
    closing = opening + sums.whole.total_nanos
    return Invoice(account.id, month, None, opening, closing, content, None)


async def _whose(connection: AsyncConnection, account: Account) -> Whose:
    assert account.ledger_account is not None, "only who has a balance has invoices"
    if account.role is Role.PROVIDER:
        owned = (await purses.purse_of(connection, account.id)).all()
        return Whose(account.id, owned, sells=True)
    return Whose(account.id, [account.ledger_account], sells=False)


def _by_endpoint(totals: Totals) -> list[dict[str, Any]]:
    """A line for each endpoint, and one for those that are too many to tell."""
    rows = [(group, sums) for group, sums in totals.rows if sums.calls_nanos or sums.credits_nanos]
    left = totals.whole
    for _, sums in totals.rows:
        left = left.minus(sums)
    if left.calls_nanos or left.credits_nanos:
        rows.append(("(others)", left))
    return [{"endpoint": group, **_shown(sums)} for group, sums in rows]


async def _transfers(connection: AsyncConnection, whose: Whose, span: Span) -> list[dict[str, Any]]:
    return [
        {
            "day": each.day.isoformat(),
            "kind": each.kind,
            "count": each.count,
            "amount_usd": format_usd(each.amount_nanos),
        }
        for each in await invoices.moved_by_kind(connection, whose, span)
    ]


async def _notes(
    connection: AsyncConnection, account: Account, span: Span
) -> dict[str, Any] | None:
    if account.role is not Role.CONSUMER:
        return None
    found = await invoices.noted(connection, account.id, span)
    return {"count": found.count, "first_number": found.first, "last_number": found.last}


def _shown(sums: Sums) -> dict[str, Any]:
    return {
        "calls": sums.calls,
        "calls_usd": format_usd(sums.calls_nanos),
        "credits_usd": format_usd(sums.credits_nanos),
        "other_usd": format_usd(sums.other_nanos),
        "total_usd": format_usd(sums.total_nanos),
    }


def _first_month(account: Account) -> date:
    if account.ledger_account is None:
        raise NotFound("An operator has no balance.")
    return _month_of(account.created_at)


def _month_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date().replace(day=1)


def _month_before(month: date) -> date:
    return month.replace(year=month.year - (month.month == 1), month=(month.month - 2) % 12 + 1)


def _begin(month: date) -> datetime:
    return datetime.combine(month, time(), UTC)


def _end(month: date) -> datetime:
    """Return when a month ends, which is when the next one begins."""
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    return _begin(following)
