"""When a payout is due, of what size it can be, and where it can go."""

from __future__ import annotations

import enum
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec

CENT_NANOS: Final = 10_000_000
"""A payout is whole cents; what is less stays available."""


class Schedule(enum.StrEnum):
    """How often a provider is paid out: each day, on Mondays, on the first, or when it asks."""

    MANUAL = "manual"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


def next_due(schedule: Schedule, now: datetime) -> datetime | None:
    """Return the first midnight after `now`, UTC, that the schedule names; None for MANUAL."""
    if schedule is Schedule.MANUAL:
        return None
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if schedule is Schedule.WEEKLY:
        return midnight + timedelta(days=-midnight.weekday() % 7)
    if schedule is Schedule.MONTHLY and midnight.day != 1:
        return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return midnight


def whole_cents(nanos: int) -> int:
    """Return the whole cents of an amount, both nano-dollars; 0 of one below zero."""
    return max(0, nanos // CENT_NANOS) * CENT_NANOS


class Bank(msgspec.Struct, frozen=True, tag="bank", tag_field="method", forbid_unknown_fields=True):
    """An account at a bank."""

    holder: str
    iban: str
    bic: str = ""

    @property
    def hint(self) -> str:
        """What may be shown of it."""
        return f"{self.iban[:4]}…{self.iban[-4:]}"


class Stripe(
    msgspec.Struct, frozen=True, tag="stripe", tag_field="method", forbid_unknown_fields=True
):
    """A connected account of the broker's account with Stripe."""

    account: str

    @property
    def hint(self) -> str:
        """What may be shown of it."""
        return f"acct_…{self.account[-4:]}"


Destination: TypeAlias = Bank | Stripe
"""Where a payout goes."""


class Method(enum.StrEnum):
    """How a payout goes out; the tag of its destination."""

    BANK = "bank"
    STRIPE = "stripe"


def method_of(destination: Destination) -> Method:
    """Return how money goes to a destination."""
    return Method.BANK if isinstance(destination, Bank) else Method.STRIPE
