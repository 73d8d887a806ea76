"""Draws the postings of one call: what was held and freed, and what moved between which accounts.

Every entry moves money from accounts to others, so the postings of each sum to zero, and so do all
of them. What is held is set aside within one account and freed again when the call is settled.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

CHARGE: Final = "charge"


class CallState(enum.StrEnum):
    """How a call stands in the books."""

    REFUSED = "refused"
    """Nothing was ever held for it."""
    UNDER_WAY = "under_way"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


class Account(msgspec.Struct, frozen=True):
    """A ledger account; `owner` is None where it is the broker's own."""

    id: UUID
    owner_id: UUID | None
    owner: str | None
    kind: str
    shard: int = 0

    @property
    def name(self) -> str:
        """Such as `acme/earnings`, `broker/take/3` or `world`."""
        if self.owner is not None:
            return f"{self.owner}/{self.kind}"
        return self.kind if self.kind == "world" else f"broker/{self.kind}/{self.shard}"


Naming = Callable[[Account], str]
"""How a reader knows the accounts."""


class Posting(msgspec.Struct, frozen=True):
    """What one account got, or below zero gave."""

    account: Account
    amount_nanos: int


class Entry(msgspec.Struct, frozen=True):
    """One movement of money: a line of the settlement (`charge`), or a transfer by its kind."""

    at: datetime
    kind: str
    postings: tuple[Posting, ...]
    id: UUID | None = None
    """Of the transfer."""
    attempt: int | None = None
    endpoint: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    price_version: int | None = None
    reason: str = ""
    author: str = ""

    @property
    def sum_nanos(self) -> int:
        """Zero, or the books are broken."""
        return sum(each.amount_nanos for each in self.postings)

    def concerns(self, owner_id: UUID) -> bool:
        """True when one of the accounts is theirs."""
        return any(each.account.owner_id == owner_id for each in self.postings)


class HeldMove(msgspec.Struct, frozen=True):
    """What was set aside, or below zero freed again."""

    at: datetime
    kind: str
    amount_nanos: int


class Postings(msgspec.Struct, frozen=True):
    """All that one call did to the books; `payer` is None where nothing was held."""

    call_id: UUID
    state: CallState
    begun_at: datetime
    asked: str
    """What for, and what the caller was answered."""
    payer: Account | None
    expires_at: datetime | None
    held: tuple[HeldMove, ...]
    entries: tuple[Entry, ...]

    @property
    def held_nanos(self) -> int:
        """What is still held: zero once the call is settled."""
        return sum(each.amount_nanos for each in self.held)

    @property
    def sum_nanos(self) -> int:
        """Over all entries: zero, or the books are broken."""
        return sum(each.sum_nanos for each in self.entries)

    def totals(self, name: Naming) -> dict[str, int]:
        """What each account got in all, nano-dollars by name, as they first appear."""
        sums: dict[str, int] = {}
        for posting in (posting for entry in self.entries for posting in entry.postings):
            named = name(posting.account)
            sums[named] = sums.get(named, 0) + posting.amount_nanos
        return sums


def full_name(account: Account) -> str:
    """Return an account's name as operators see it."""
    return account.name


def name_for_consumer(owner_id: UUID) -> Naming:
    """Names for who paid: of other accounts only whose they are, not which purse it was."""

    def name(account: Account) -> str:
        if account.owner_id == owner_id:
            return account.name
        return account.owner or "broker"

    return name


def name_for_provider(owner_id: UUID) -> Naming:
    """Names for who served: it does not learn who called."""

    def name(account: Account) -> str:
        if account.owner_id == owner_id:
            return account.name
        return "broker" if account.owner is None else "caller"

    return name


def part_of(postings: Postings, owner_id: UUID) -> Postings:
    """Return the part that a provider sees: its own entries, and nothing of the hold."""
    own = _concerning(postings.entries, owner_id)
    return msgspec.structs.replace(
        postings, asked="", payer=None, expires_at=None, held=(), entries=own
    )


def _concerning(entries: Iterable[Entry], owner_id: UUID) -> tuple[Entry, ...]:
    return tuple(each for each in entries if each.concerns(owner_id))
