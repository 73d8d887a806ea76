"""Invoices: an account's months as JSON, as a table, or as a page to print."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromPath

from broker.api import tables
from broker.api.callers import OPERATORS, TRADERS
from broker.api.long_reads import LONG
from broker.api.money.invoice_messages import (
    EndpointLine,
    InvoiceHead,
    InvoiceList,
    InvoiceShown,
    NumbersOfNotes,
    TransferLine,
)
from broker.api.money.invoice_page import page
from broker.api.money.statements import SumsShown
from broker.api.parts import CallerRequest, GivenCaller, GivenEngine, GivenTime
from broker.api.tables import AskedForm, Form, form_of
from broker.errors import RequestMalformed
from broker.flows.money.invoice import list_invoices, read_invoice
from broker.flows.money.statement import owner
from broker.store.money.invoices import Invoice
from pricing.money import format_usd

_SAFE = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


class InvoiceController(Controller):
    """`/api/invoices`"""

    path = "/invoices"
    guards = (TRADERS,)
    tags = ("Money",)
    dependencies = LONG

    @get(summary="The closed months")
    async def list(self, engine: GivenEngine, caller: GivenCaller, now: GivenTime) -> InvoiceList:
        found = await list_invoices(engine, caller, now)
        return InvoiceList(invoices=[InvoiceHead(**_head(each)) for each in found])

    @get("/{month:str}", summary="A month, such as 2026-01")
    async def read(
        self,
        request: CallerRequest,
        engine: GivenEngine,
        caller: GivenCaller,
        now: GivenTime,
        month: FromPath[str],
        form: AskedForm = None,
    ) -> InvoiceShown | Response[str]:
        shown = invoice_shown(await read_invoice(engine, caller, _month(month), now))
        return _told(shown, form_of(request, form))


class AccountInvoiceController(Controller):
    """`/api/accounts/{name}/invoices`"""

    path = "/accounts/{name:str}/invoices"
    guards = (OPERATORS,)
    tags = ("Accounts",)
    dependencies = LONG

    @get(summary="An account's closed months")
    async def list(self, name: FromPath[str], engine: GivenEngine, now: GivenTime) -> InvoiceList:
        found = await list_invoices(engine, await owner(engine, name), now)
        return InvoiceList(invoices=[InvoiceHead(**_head(each)) for each in found])

    @get("/{month:str}", summary="A month of an account")
    async def read(
        self,
        name: FromPath[str],
        month: FromPath[str],
        request: CallerRequest,
        engine: GivenEngine,
        now: GivenTime,
        form: AskedForm = None,
    ) -> InvoiceShown | Response[str]:
        whose = await owner(engine, name)
        shown = invoice_shown(await read_invoice(engine, whose, _month(month), now))
        return _told(shown, form_of(request, form))


def _told(shown: InvoiceShown, form: Form) -> InvoiceShown | Response[str]:
    match form:
        case Form.CSV:
            return tables.answer(_lines(shown), f"invoice-{shown.month}.csv")
        case Form.HTML:
            return Response(page(shown), media_type="text/html; charset=utf-8", headers=_SAFE)
        case _:
            return shown


def invoice_shown(invoice: Invoice) -> InvoiceShown:
    """Write an invoice."""
    content = invoice.content
    notes = content["credit_notes"]
    return InvoiceShown(
        **_head(invoice),
        account=content["account"],
        role=content["role"],
        endpoints=[EndpointLine(**each) for each in content["endpoints"]],
        transfers=[
            TransferLine(**{**each, "day": date.fromisoformat(each["day"])})
            for each in content["transfers"]
        ],
        credit_notes=None if notes is None else NumbersOfNotes(**notes),
        sums=SumsShown(**content["sums"]),
    )


def _head(invoice: Invoice) -> dict[str, Any]:
    numbered = invoice.number is not None
    return {
        "month": f"{invoice.month:%Y-%m}",
        "status": "issued" if numbered else "open",
        "number": f"INV-{invoice.content['account']}-{invoice.number:06}" if numbered else None,
        "currency": "USD",
        "opening_usd": format_usd(invoice.opening_nanos),
        "closing_usd": format_usd(invoice.closing_nanos),
        "issued_at": invoice.issued_at,
    }


def _month(text: str) -> date:
    try:
        month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError:
        month = None
    if month is None or f"{month:%Y-%m}" != text:
        raise RequestMalformed("A month is written 2026-01.", code="month_malformed")
    return month


def _lines(shown: InvoiceShown) -> list[str]:
    """What was told, one movement a line, between the opening and the closing balance."""
    rows: list[tuple[object, ...]] = [
        ("what", "of", "count", "amount_usd"),
        ("opening", shown.month, None, shown.opening_usd),
    ]
    for each in shown.endpoints:
        name = tables.words(each.endpoint)
        rows.append(("calls", name, each.calls, each.calls_usd))
        if each.credits_usd != format_usd(0):
            rows.append(("credits", name, None, each.credits_usd))
    rows += [(each.kind, each.day, each.count, each.amount_usd) for each in shown.transfers]
    rows.append(("closing", shown.month, None, shown.closing_usd))
    return [tables.line(row) for row in rows]
