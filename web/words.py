"""Says numbers, moments and reasons the way people read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from broker.core.candidates.reasons import WORDS
from broker.core.catalog import Band
from pricing.book import Rate
from pricing.money import MICROS_PER_USD, NANOS_PER_USD, format_rate, format_usd

MINUS = "\u2212"
NOTHING = "\u2013"
"""Stands where there is no value."""
REJECTIONS = {each.name.lower(): words.capitalize() for each, words in WORDS.items()}
PARTS = {
    "quality": "Quality",
    "domain_fit": "Domain fit",
    "cost": "Cost",
    "latency": "Latency",
    "availability": "Availability",
}
STATES = {"down": "away"}
"""How the console calls a state, where the market calls it otherwise."""


def usd(nanos: int) -> str:
    """An amount, short: two decimals from a dollar on, three significant digits below."""
    sign = MINUS if nanos < 0 else ""
    dollars = abs(nanos) / NANOS_PER_USD
    return f"{sign}${_short(dollars) if dollars < 0.9995 else f'{dollars:,.2f}'}"


def usd_exact(nanos: int) -> str:
    """An amount to the last nano-dollar."""
    return f"${format_usd(nanos)}"


def _short(dollars: float) -> str:
    if not dollars:
        return "0.00"
    decimals = 2
    while decimals < 9 and dollars < 10 ** (2 - decimals):
        decimals += 1
    return f"{dollars:.{decimals}f}"


def price(dollars: float) -> str:
    """A price in USD, of about four significant digits and at most nine decimals."""
    if dollars >= 10:
        return f"{dollars:,.2f}"
    decimals = 3
    while decimals < 9 and dollars and dollars < 10 ** (2 - decimals):
        decimals += 1
    return f"{dollars:.{decimals}f}"


def headline(rate: Rate | None) -> float:
    """The one number that stands for a rate: USD per Mtok out, else per Mtok in, else per call."""
    if rate is None:
        return 0.0
    if rate.rate_out_micros or rate.rate_in_micros:
        return (rate.rate_out_micros or rate.rate_in_micros) / MICROS_PER_USD
    return rate.rate_call_nanos / NANOS_PER_USD


def unit(band: Band) -> str:
    """What `headline` counts for an endpoint of this band."""
    if band.ceiling_out_micros:
        return "Mtok out"
    return "Mtok in" if band.ceiling_in_micros else "call"


def beside(rate: Rate | None) -> str:
    """The part of a rate that `headline` leaves out."""
    if rate is None or not (rate.rate_out_micros and rate.rate_in_micros):
        return ""
    return f"${price(rate.rate_in_micros / MICROS_PER_USD)} in"


def exact(rate: Rate | None) -> str:
    """A rate to the last digit."""
    if rate is None:
        return "no price yet"
    if rate.rate_call_nanos:
        return f"${format_usd(rate.rate_call_nanos)} per call"
    rate_in, rate_out = format_rate(rate.rate_in_micros), format_rate(rate.rate_out_micros)
    return f"${rate_in} in, ${rate_out} out, per Mtok"


def duration(milliseconds: float | None) -> str:
    """A duration in the unit that reads best."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1_000:.2f} s"
    return f"{milliseconds / 60_000:.1f} min"


def percent(share: float) -> str:
    """A share of one as whole percent, but never 100% for less than all."""
    return f"{min(round(share * 100), 99 if share < 1 else 100_000)}%"


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    whole = round(share * 100)
    return f"{MINUS if whole < 0 else '+' if whole else ''}{abs(whole)}"


def count(number: int) -> str:
    """A whole number with thousands set apart."""
    return f"{number:,}"


def clock(moment: datetime) -> str:
    """The time of day in UTC; the browser makes local time of it where it can."""
    return moment.astimezone(UTC).strftime("%H:%M:%S")


def phrase(code: str) -> str:
    """A code as words."""
    return REJECTIONS.get(code) or code.replace("_", " ")


def filters() -> dict[str, Callable[..., Any]]:
    """What templates may use after a `|`."""
    return {
        "usd": usd,
        "usd_exact": usd_exact,
        "price": price,
        "duration": duration,
        "percent": percent,
        "points": points,
        "count": count,
        "clock": clock,
        "phrase": phrase,
    }
