"""What is told of invoices: an account's months, each with what it is made of."""

from __future__ import annotations

from datetime import date, datetime

from broker.api.money.statements import SumsShown
from broker.api.wire import Reply


class EndpointLine(SumsShown):
    """The calls that an endpoint worked for, and what went back for them."""

    endpoint: str | None


class TransferLine(Reply):
    """Top-ups, payouts and their like, of one kind on one day of UTC."""

    day: date
    kind: str
    count: int
    amount_usd: str


class NumbersOfNotes(Reply):
    """The credit notes of the month, which are numbered without a gap."""

    count: int
    first_number: int | None
    last_number: int | None


class InvoiceHead(Reply):
    """A month; `number` and `issued_at` are null while it is open."""

    month: str
    status: str
    number: str | None
    currency: str
    opening_usd: str
    closing_usd: str
    issued_at: datetime | None


class InvoiceShown(InvoiceHead):
    """A month in full: `opening` + the sums' total = `closing`."""

    account: str
    role: str
    endpoints: list[EndpointLine]
    transfers: list[TransferLine]
    credit_notes: NumbersOfNotes | None
    sums: SumsShown


class InvoiceList(Reply):
    """The closed months, newest first."""

    invoices: list[InvoiceHead]
