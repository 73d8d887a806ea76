"""Checks bank accounts by the rules of their countries, before money is sent to them."""

from __future__ import annotations

from typing import Final

from broker.core.money.payout import Bank
from broker.errors import RequestMalformed

HOLDER_CHARACTERS_MAX: Final = 70


def checked(account: Bank) -> Bank:
    """Return the account as banks write it: no blanks, upper case.

    Raises RequestMalformed with code `iban_invalid`, `bic_invalid` or `holder_invalid`.
    """
    # Imported late, for it reads its tables of countries and banks at import.
    from schwifty import BIC, IBAN

    holder = " ".join(account.holder.split())
    # What begins with a sign would be a formula in a spreadsheet.
    if not holder[:1].isalnum() or not holder.isprintable() or len(holder) > HOLDER_CHARACTERS_MAX:
        raise RequestMalformed(
            "The holder of a bank account has 1 to 70 characters, of which the first is a letter "
            "or a digit.",
            code="holder_invalid",
        )
    try:
        iban = str(IBAN(account.iban))
    except ValueError as error:
        raise RequestMalformed(f"The IBAN is wrong: {error}.", code="iban_invalid") from None
    try:
        bic = str(BIC(account.bic)) if account.bic.strip() else ""
    except ValueError as error:
        raise RequestMalformed(f"The BIC is wrong: {error}.", code="bic_invalid") from None
    return Bank(holder=holder, iban=iban, bic=bic)
