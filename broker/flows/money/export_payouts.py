"""Writes a batch of payouts as a file: pain.001 for the bank, or CSV."""

from __future__ import annotations

import asyncio
import csv
import enum
import io
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.money.payout import CENT_NANOS, Bank, Destination, Method, Stripe
from broker.errors import Conflict, RequestMalformed, SettingInvalid
from broker.outbound import bank_account, pain001
from broker.outbound.pain001 import Credit
from broker.settings import Payouts
from broker.store.access import audit
from broker.store.money import payout_batches, payout_terms, payouts
from broker.store.money.payout_batches import Batch
from broker.store.money.payouts import Payout, PayoutStatus, Wanted
from broker.store.sealing import Sealer
from pricing.money import format_usd

_COLUMNS = ("payout", "provider", "number", "amount_usd", "holder", "account", "bic")


class Format(enum.StrEnum):
    """What a file is for."""

    PAIN001 = "pain001"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class File:
    """A file to be handed to a bank."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Export:
    """What is wanted, by whom."""

    batch_id: UUID
    format: Format
    author: str


def debtor_of(settings: Payouts) -> Bank:
    """Return the broker's own bank account. Raises SettingInvalid."""
    try:
        return bank_account.checked(Bank(settings.name, settings.iban, settings.bic))
    except RequestMalformed as error:
        raise SettingInvalid(
            f"BROKER_PAYOUT_NAME, _IBAN and _BIC must be the account to pay from. {error.detail}",
            code="payout_account_missing",
        ) from None


async def export(
    connection: AsyncConnection, wanted: Export, desk: tuple[Sealer, Payouts], now: datetime
) -> File:
    """Return the file of those payouts of a batch that are still open.

    Written again, a message carries the name and the day that it first had, so that a bank which
    has it takes it no second time. Raises NotFound, Conflict with code `nothing_to_export` or
    `not_for_a_bank`, SettingInvalid without an account to pay from, FileInvalid.
    """
    sealer, settings = desk
    batch = await payout_batches.lock_batch(connection, wanted.batch_id)
    due = await payouts.list_payouts(
        connection, Wanted(batch_id=batch.id, status=PayoutStatus.OPEN, limit=1_000)
    )
    if not due:
        raise Conflict("No payout of this batch is open.", code="nothing_to_export")
    places = await payout_terms.open_places(connection, [each.place.id for each in due], sealer)
    paid = [(each, places[each.place.id]) for each in reversed(due)]
    exported_at = batch.exported_at or now
    if wanted.format is Format.CSV:
        file = File(f"payouts-{batch.id}.csv", "text/csv", _csv(paid))
    else:
        content = await _pain001(batch, exported_at, paid, debtor_of(settings))
        file = File(f"payouts-{batch.id}.xml", "application/xml", content)
    if batch.exported_at is None:
        await payout_batches.mark_exported(connection, batch.id, now)
    detail = {"format": wanted.format.value, "payouts": len(paid)}
    deed = audit.Deed(wanted.author, "export_payouts", f"payout_batches/{batch.id}", detail)
    await audit.record(connection, deed, now)
    return file


async def _pain001(
    batch: Batch, at: datetime, paid: list[tuple[Payout, Destination]], debtor: Bank
) -> bytes:
    if batch.method is not Method.BANK:
        raise Conflict("This batch does not go through a bank.", code="not_for_a_bank")
    due = [
        Credit(payout.id, account, payout.amount_nanos // CENT_NANOS, f"Payout {payout.number}")
        for payout, account in paid
        if isinstance(account, Bank)
    ]
    # Validating takes a while, which calls under way are not to wait for.
    return await asyncio.to_thread(pain001.write, batch.id, at, debtor, due)


def _csv(paid: list[tuple[Payout, Destination]]) -> bytes:
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(_COLUMNS)
    for payout, place in paid:
        amount = format_usd(payout.amount_nanos)
        account = ("", place.account, "") if isinstance(place, Stripe) else _bank(place)
        writer.writerow((payout.id, payout.provider, payout.number, amount, *account))
    return lines.getvalue().encode()


def _bank(account: Bank) -> tuple[str, str, str]:
    return account.holder, account.iban, account.bic
