"""How money that goes back for a call is shared among its lines, and each share between two purses.

A refund is shared in the proportion of what is left of each line, rounded down; the few
nano-dollars that remain go to the first lines that have room. Of what a line has given back in all,
the broker's part is in the proportion of its take, rounded down:

    given(take) = floor(given * take / charge)        given(earnings) = given - given(take)

Both grow with what is given, so a line given back whole gives exactly its take and its earnings,
whatever the steps on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ChargedLine:
    """A line of a settled call, and what of it has gone back so far; nano-dollars."""

    attempt: int
    endpoint_id: UUID
    provider_id: UUID
    take_id: UUID
    """The ledger account that the broker's share went to."""
    charge_nanos: int
    take_nanos: int
    given_nanos: int = 0
    given_take_nanos: int = 0

    @property
    def left_nanos(self) -> int:
        """What can still go back."""
        return self.charge_nanos - self.given_nanos


@dataclass(frozen=True, slots=True)
class GivenLine:
    """What goes back of one line: `amount = take + earnings`."""

    line: ChargedLine
    amount_nanos: int
    take_nanos: int

    @property
    def earnings_nanos(self) -> int:
        """The provider's part."""
        return self.amount_nanos - self.take_nanos


def left_of(lines: Sequence[ChargedLine]) -> int:
    """Return what can still go back for these lines."""
    return sum(each.left_nanos for each in lines)


def apportion(amount_nanos: int, rooms: Sequence[int]) -> list[int]:
    """Share an amount from 0 to the sum of `rooms` in their proportion, none above its room."""
    whole = sum(rooms)
    assert 0 <= amount_nanos <= whole, "what is shared fits the rooms"
    shares = [amount_nanos * room // whole for room in rooms] if whole else [0] * len(rooms)
    rest = amount_nanos - sum(shares)
    for place, room in enumerate(rooms):
        more = min(rest, room - shares[place])
        shares[place] += more
        rest -= more
    return shares


def share_out(amount_nanos: int, lines: Sequence[ChargedLine]) -> list[GivenLine]:
    """Share an amount from 1 to `left_of(lines)` among the lines, those that give nothing left out.

    The shares sum to the amount.
    """
    shares = apportion(amount_nanos, [each.left_nanos for each in lines])
    return [_given(line, share) for line, share in zip(lines, shares, strict=True) if share]


def _given(line: ChargedLine, amount_nanos: int) -> GivenLine:
    whole = line.given_nanos + amount_nanos
    take = whole * line.take_nanos // line.charge_nanos - line.given_take_nanos
    return GivenLine(line, amount_nanos, take)
