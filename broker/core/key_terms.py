"""What a key may do, as values: scopes, rates, and lists of what its calls may ask for."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import msgspec

ContentKept = Literal["none", "replay", "full"]


class Scope(enum.StrEnum):
    """What a key opens; a key of the wrong scope is refused by name."""

    CALLS = "calls"
    """The data plane: `/v1` and `/v2`."""
    READ = "read"
    """Reading what the account may see: calls, prices, balance, statements."""
    MONEY = "money"
    """Whatever moves or promises money: top-ups, quotes, refunds, payouts."""
    KEYS = "keys"
    """Making, listing, rotating and revoking keys."""
    DEPLOYMENTS = "deployments"
    """Putting servers on the market and taking them off."""


ALL_SCOPES: Final = frozenset(Scope)


class Rates(msgspec.Struct, frozen=True):
    """How much a key may use in a minute, over all processes; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Allowance(msgspec.Struct, frozen=True):
    """What a key's calls may ask for; None is all.

    `models` are families, or endpoints written `provider/endpoint`.
    """

    models: frozenset[str] | None = None
    providers: frozenset[str] | None = None
    domains: frozenset[str] | None = None


NO_RATES: Final = Rates()
NO_ALLOWANCE: Final = Allowance()


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key may do: at most `calls_max` calls at once, until `expires_at`."""

    label: str = ""
    calls_max: int | None = None
    content_kept: ContentKept = "none"
    expires_at: datetime | None = None
    scopes: frozenset[Scope] = ALL_SCOPES
    rates: Rates | None = None
    """None: no limit, so that the calls of most keys need not look any further."""
    allowance: Allowance | None = None
    """None: anything."""
    explore: bool | None = None
    """May its calls to `auto` go to who may be better than it seems? None: as each call says."""


def within(limit: frozenset[str] | None, asked: frozenset[str] | None) -> bool:
    """True when a list allows nothing that `limit` does not; None is a list of everything."""
    return limit is None or (asked is not None and asked <= limit)
