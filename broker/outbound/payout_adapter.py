"""What a payment service must be able to do, so that a payout is paid once whatever dies when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from broker.core.money.payout import Destination, Method


@dataclass(frozen=True, slots=True)
class Order:
    """One payout to be paid, in USD cents."""

    payout_id: UUID
    amount_cents: int
    destination: Destination


@dataclass(frozen=True, slots=True)
class Payment:
    """What a service has done: its own reference, and whether all of it has come back since."""

    reference: str
    reversed: bool = False


class PaymentRefused(Exception):
    """The service will not pay this, and has not: the text says why."""


class PaymentUnclear(Exception):
    """The service may or may not have paid: the same order must be given again."""


class PayoutAdapter(Protocol):
    """A way to send payouts through a service."""

    @property
    def method(self) -> Method:
        """The destinations that it serves."""

    async def pay(self, order: Order) -> Payment:
        """Pay an order, or return what was paid for it before.

        However often and however late the same payout is ordered, it is paid once. Raises
        PaymentRefused, PaymentUnclear.
        """
