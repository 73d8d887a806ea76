"""Amounts and rates as integers: parsing, formatting, the one rounding, and the split of a charge.

    amount      nano-dollars                       1 USD = 10^9 nanos
    token rate  micro-dollars per million tokens   tokens * rate = pico-dollars, exactly
    call rate   nano-dollars per call              1 nano = 1,000 picos

All arithmetic is on Python ints, so nothing overflows on the way; the maxima below keep what is
stored far inside a BIGINT (9.2 * 10^18) and exact in a float64 (rates below 2^53).
"""

from __future__ import annotations

import re

NANOS_PER_USD = 10**9
MICROS_PER_USD = 10**6
PICOS_PER_NANO = 1_000
BPS_WHOLE = 10_000
"""Basis points in the whole."""

MAX_AMOUNT_NANOS = 10**18
"""A billion dollars: the largest amount taken in from outside; nine of them still fit a BIGINT."""
MAX_RATE_MICROS = 10**12
"""A million dollars per million tokens: the largest token rate."""
MAX_RATE_CALL_NANOS = 10**15
"""A million dollars per call: the largest call rate."""

_MAX_TEXT = 40
_DECIMAL = re.compile(r"([0-9]+)(?:\.([0-9]+))?")


class MoneyError(ValueError):
    """The base of everything that can be wrong with an amount."""


class AmountMalformed(MoneyError):
    """Not a plain decimal: a sign, an exponent, a space, NaN, or too many decimals."""


class AmountOutOfRange(MoneyError):
    """A well-formed amount beyond what the market deals in."""


def parse_usd_nanos(text: str, *, maximum_nanos: int = MAX_AMOUNT_NANOS) -> int:
    """Nano-dollars from a decimal string in USD with at most 9 decimals, such as "12.50".

    Raises AmountMalformed, or AmountOutOfRange above `maximum_nanos`.
    """
    return _parse(text, decimals=9, maximum=maximum_nanos)


def parse_signed_usd_nanos(text: str) -> int:
    """The same for an amount that may be below zero, such as "-0.50". Raises as that does."""
    below = text.startswith("-")
    nanos = _parse(text, decimals=9, maximum=MAX_AMOUNT_NANOS, sign="-" if below else "")
    return -nanos if below else nanos


def parse_rate_micros(text: str) -> int:
    """Micro-dollars per million tokens from USD per million tokens, at most 6 decimals.

    Raises AmountMalformed, or AmountOutOfRange above MAX_RATE_MICROS.
    """
    return _parse(text, decimals=6, maximum=MAX_RATE_MICROS)


def parse_call_rate_nanos(text: str) -> int:
    """Nano-dollars per call from USD per call, at most 9 decimals.

    Raises AmountMalformed, or AmountOutOfRange above MAX_RATE_CALL_NANOS.
    """
    return _parse(text, decimals=9, maximum=MAX_RATE_CALL_NANOS)


def format_usd(nanos: int) -> str:
    """A decimal string in USD with 2 to 9 decimals; "-" before an amount below zero."""
    return _format(nanos, decimals=9)


def format_rate(micros: int) -> str:
    """A decimal string in USD per million tokens with 2 to 6 decimals."""
    return _format(micros, decimals=6)


def charge_nanos(picos: int) -> int:
    """Pico-dollars rounded up to whole nano-dollars: the only rounding between usage and ledger.

    Up, so that no served work is ever free, however small, at a cost of under a nano-dollar to
    the consumer; and because it is monotone, a charge under its ceiling stays under its hold.
    """
    if picos < 0:
        raise AmountOutOfRange("a charge cannot be below zero")
    return -(-picos // PICOS_PER_NANO)


def split(charge_nanos: int, take_bps: int) -> tuple[int, int]:
    """(take, earnings) in nano-dollars: the broker's share floored, the rest to the provider."""
    if charge_nanos < 0:
        raise AmountOutOfRange("a charge cannot be below zero")
    if not 0 <= take_bps <= BPS_WHOLE:
        raise AmountOutOfRange(f"a take lies between 0 and {BPS_WHOLE} basis points")
    take = charge_nanos * take_bps // BPS_WHOLE
    return take, charge_nanos - take


def _parse(text: str, *, decimals: int, maximum: int, sign: str = "") -> int:
    """What follows the sign that `text` begins with; complaints are of the whole text."""
    # The length comes first: it bounds the work that a hostile string can ask for.
    match = _DECIMAL.fullmatch(text, len(sign)) if len(text) <= _MAX_TEXT + len(sign) else None
    if match is None:
        raise AmountMalformed(f'expected a plain decimal such as "0.25", got {text[:_MAX_TEXT]!r}')
    whole, fraction = match[1], match[2] or ""
    if len(fraction) > decimals:
        raise AmountMalformed(f"{text!r} has more than {decimals} decimals")
    value = int(whole + fraction.ljust(decimals, "0"))
    if value > maximum:
        passed = "below" if sign else "above"
        most = _format(maximum, decimals=decimals)
        raise AmountOutOfRange(f"{text} is {passed} {sign}{most} USD")
    return value


def _format(value: int, *, decimals: int) -> str:
    digits = f"{abs(value):0{decimals + 1}d}"
    fraction = digits[-decimals:].rstrip("0")
    return f"{'-' if value < 0 else ''}{digits[:-decimals]}.{fraction:0<2}"
