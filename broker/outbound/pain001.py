"""Writes a batch of payouts as an ISO 20022 customer credit transfer (pain.001), as banks take it.

The library writes it and holds the schema that the result is validated against. It names messages
by chance and by its own clock; here the batch names them, so that a batch written twice is the same
message, which a bank takes once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID
from xml.etree import ElementTree

from broker.core.money.payout import Bank
from broker.errors import BrokerError

SCHEMA: Final = "pain.001.001.09"
CURRENCY: Final = "USD"
_SPACE: Final = f"{{urn:iso:std:iso:20022:tech:xsd:{SCHEMA}}}"


class FileInvalid(BrokerError):
    """A file for the bank does not fit the schema, so it is not handed out."""

    code = "payout_file_invalid"


@dataclass(frozen=True, slots=True)
class Credit:
    """One payment: `payout_id` is its end-to-end reference, `words` what the payee reads."""

    payout_id: UUID
    account: Bank
    amount_cents: int
    words: str


def write(batch_id: UUID, at: datetime, debtor: Bank, credits_due: list[Credit]) -> bytes:
    """Return the message, to be executed on the day of `at`. Raises FileInvalid."""
    # Imported late: the validator takes most of a second.
    from sepaxml.transfer import SepaTransfer
    from sepaxml.validation import ValidationError, try_valid_xml

    message = SepaTransfer(
        # No service level, for SEPA is of euros alone.
        {**_party(debtor), "batch": True, "currency": CURRENCY, "domestic": True},
        schema=SCHEMA,
    )
    for each in credits_due:
        message.add_payment(
            {
                **_party(each.account),
                "amount": each.amount_cents,
                "execution_date": at.astimezone(UTC).date(),
                "description": each.words,
                "endtoend_id": each.payout_id.hex,
            }
        )
    written = _named(message.export(validate=False), batch_id, at)
    try:
        try_valid_xml(written, SCHEMA)
    except ValidationError as error:
        cause = getattr(error.__cause__, "reason", None) or error
        raise FileInvalid(f"Batch {batch_id} does not fit {SCHEMA}: {cause}") from error
    return written


def _party(account: Bank) -> dict[str, str]:
    party = {"name": account.holder, "IBAN": account.iban}
    return party | ({"BIC": account.bic} if account.bic else {})


def _named(written: bytes, batch_id: UUID, at: datetime) -> bytes:
    """Name the message for the batch, and share the charges as is usual outside SEPA."""
    root = ElementTree.fromstring(written)  # noqa: S314 - it was written right here
    texts = {
        "MsgId": batch_id.hex,
        "PmtInfId": batch_id.hex,
        "CreDtTm": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ChrgBr": "SHAR",
    }
    for tag, value in texts.items():
        for element in root.iter(_SPACE + tag):
            element.text = value
    declared = ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True)
    return bytes(declared)
