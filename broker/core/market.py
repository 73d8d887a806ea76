"""One immutable picture of the market: endpoints, prices, who may be called; swapped whole.

What changes by the call (in-flight counts, breakers, latencies) is not here but in
`broker.core.health.pulse`, which stands beside it. What many calls ask alike of one market is
worked out once and remembered with it: the shortlists.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import msgspec

from broker.core.catalog import Endpoint
from broker.core.columns import Bools, Columns, Floats, Numbers, build_columns
from broker.core.handful import Handful
from broker.core.quality.domains import Recogniser
from broker.core.quality.lessons import Lessons
from pricing.book import EndpointUnpriced, PriceBook, Rate
from pricing.tiers import STANDARD, Tier, tier_rate

RATES_MAX: Final = 1_024
"""So many endpoints' rates are remembered, of those that calls went to since prices moved."""


class Presence(enum.IntEnum):
    """Whether a deployment's agent says that it can be called."""

    READY = 0
    DRAINING = 1
    DOWN = 2
    """Its agent says so, or three heartbeats were missed."""


class Lone(msgspec.Struct, frozen=True, gc=False):
    """A shortlist of one, as plain numbers; rates in pico-dollars."""

    number: int
    deployment: int
    rate_in: float
    rate_out: float
    rate_call: float
    capacity: float
    context_tokens: int
    output_tokens: int
    quality: float
    domain_fit: float


@dataclass(frozen=True, slots=True, eq=False)
class Shortlist:
    """The endpoints that meet the terms of a call, their columns cut out and in one order."""

    numbers: Numbers
    deployments: Numbers
    at: slice | Numbers
    """The numbers as an index: a slice where they follow each other, for numpy is sooner done."""
    deployments_at: slice | Numbers
    """The same of the deployments."""
    servers: Numbers | None
    """The server of each as a small number, where any has several of them."""
    rate_in: Floats
    """Pico-dollars per token in."""
    rate_out: Floats
    rate_call: Floats | None
    """Pico-dollars per call; None where no endpoint is priced by the call."""
    typical: tuple[float, float, float]
    """The medians of the three rates, for no single endpoint to say what is typical."""
    capacity: Floats
    context_tokens: Numbers
    output_tokens: Numbers
    context_tokens_min: int
    output_tokens_min: int
    quality: Floats
    """What is declared for the asked domain, else in general."""
    domain_fit: Floats
    rejected: Numbers
    """Endpoints that do not meet the terms."""
    reasons: Numbers
    """A Rejection for each of `rejected`."""
    lone: Lone | None
    """The same in plain numbers, where there is only one."""
    few: Handful | None
    """The same in plain numbers, where there are a few."""


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """What there is to choose from. Build it with `build_market`."""

    columns: Columns
    presence: Mapping[int, Presence]
    """By deployment number; a deployment that is not named is ready."""
    book: PriceBook
    away: Bools
    """By endpoint number: those whose deployment is not ready."""
    shortlists: dict[Hashable, Shortlist | None] = field(default_factory=dict)
    """By the terms asked for; filled on first use."""
    fronts: dict[Hashable, Any] = field(default_factory=dict)
    """For `broker.core.ranking.front` to remember things of shortlists in; these do not know of it,
    or all would wait for the garbage collector at each change of prices."""
    rates: dict[int, Rate] = field(default_factory=dict)
    """By endpoint number; filled on first use."""
    recogniser: Recogniser | None = None
    """What was learned of the domains that are taught; None before, or where there are none."""
    lessons: Lessons | None = None
    """What was learned of how well the endpoints answer; None before anything was."""
    quoted: bool = False
    """True where the book holds what was quoted, for whichever tier that was."""

    @property
    def endpoints(self) -> tuple[Endpoint | None, ...]:
        """By number; None where a number is not in use."""
        return self.columns.endpoints

    @property
    def by_name(self) -> Mapping[str, int]:
        """Endpoint numbers, in the order of their names."""
        return self.columns.by_name

    def endpoint(self, number: int) -> Endpoint:
        """Return the endpoint of a number in use."""
        endpoint = self.columns.endpoints[number]
        assert endpoint is not None, f"endpoint number {number} is not in use"
        return endpoint

    def rate(self, number: int, tier: Tier = STANDARD) -> Rate:
        """Return an endpoint's rate. Raises EndpointUnpriced, also for a tier without a price."""
        rate = self.rates.get(number)
        if rate is None:
            if len(self.rates) >= RATES_MAX:
                self.rates.clear()
            rate = self.rates[number] = self.book.rate(number)
        if tier is STANDARD or self.quoted:
            return rate
        endpoint = self.endpoint(number)
        factor_bps = endpoint.tiers.get(tier)
        if factor_bps is None:
            raise EndpointUnpriced(number)
        return tier_rate(rate, factor_bps, endpoint.band.floor, endpoint.band.ceiling)

    def retire(self) -> None:
        """Be told that there is a newer one: let go of what calls to come would want, which calls
        under way would keep for as long as they take. Whoever wants it still works it out anew."""
        self.shortlists.clear()
        self.fronts.clear()
        self.rates.clear()
        if self.lessons is not None:
            self.lessons.forget_cuts()

    def visible(self, account_id: UUID) -> list[Endpoint]:
        """Return the endpoints that an account may see, by name."""
        return [
            each
            for each in map(self.endpoint, self.by_name.values())
            if each.visible_to is None or account_id in each.visible_to
        ]


def build_market(
    endpoints: Iterable[Endpoint],
    book: PriceBook,
    presence: Mapping[int, Presence],
    before: Market | None = None,
) -> Market:
    """Build the picture of those listed; what `book` lacks is not routed to.

    A price tick changes the book alone: where `before` has the very same endpoints, its columns
    are taken over, which spares a tick over a large catalog the tenth of a second they cost.
    """
    listed = tuple(endpoints)
    if before is not None and _holds(before.columns, listed):
        columns = before.columns
    else:
        columns = build_columns(listed, None if before is None else before.columns)
    gone = [number for number, state in presence.items() if state is not Presence.READY]
    away = columns.on(gone)
    if before is None:
        return Market(columns, dict(presence), book, away)
    lessons = before.lessons
    if lessons is not None and columns is not before.columns:
        new = newcomers(listed, set(before.by_name.values()))
        lessons = lessons.with_newcomers(new) if new else lessons
    return Market(
        columns, dict(presence), book, away, recogniser=before.recogniser, lessons=lessons
    )


def newcomers(listed: Iterable[Endpoint], known: Container[int]) -> list[Endpoint]:
    """Return those listed whose numbers are not known."""
    return [each for each in listed if each.number not in known]


def _holds(columns: Columns, listed: tuple[Endpoint, ...]) -> bool:
    if columns.given is listed:
        return True
    known = columns.endpoints
    return len(columns.by_name) == len(listed) and all(
        each.number < len(known) and known[each.number] is each for each in listed
    )
