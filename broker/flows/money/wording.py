"""Checks the words and amounts that people give for moving money by hand."""

from __future__ import annotations

from typing import Final

from broker.errors import Conflict, RequestMalformed
from pricing.money import MAX_AMOUNT_NANOS, format_usd

REASON_MAX_CHARACTERS: Final = 500


def checked_reason(text: str) -> str:
    """Return a reason without space around it.

    Raises RequestMalformed with code `reason_missing`, `reason_too_long` or `reason_malformed`.
    """
    reason = text.strip()
    if not reason:
        raise RequestMalformed("Give a reason.", code="reason_missing")
    if len(reason) > REASON_MAX_CHARACTERS:
        raise RequestMalformed(
            f"A reason has at most {REASON_MAX_CHARACTERS} characters.", code="reason_too_long"
        )
    if not reason.replace("\n", " ").isprintable():
        raise RequestMalformed("A reason is made of printable characters.", code="reason_malformed")
    return reason


def checked_amount(amount_nanos: int | None, left_nanos: int) -> int:
    """Return what is to go back of what is left of a charge: all of it where None is given.

    Raises RequestMalformed with code `amount_out_of_bounds`, Conflict with code `refund_too_large`.
    """
    if amount_nanos is not None and not 0 < amount_nanos <= MAX_AMOUNT_NANOS:
        raise RequestMalformed(
            f"An amount is above zero and at most {format_usd(MAX_AMOUNT_NANOS)} USD.",
            code="amount_out_of_bounds",
        )
    wanted = left_nanos if amount_nanos is None else amount_nanos
    if not 0 < wanted <= left_nanos:
        raise Conflict(
            f"{format_usd(left_nanos)} USD of the charge can still go back.",
            code="refund_too_large",
            facts={"refundable_usd": format_usd(left_nanos)},
        )
    return wanted
