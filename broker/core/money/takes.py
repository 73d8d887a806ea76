"""What the broker takes of a charge: plans by provider and domain, in tiers of a month's sales.

The most specific plan in force wins: provider and domain, then provider, then domain, then the
plan for all; without any the endpoint's own take stands. Within a plan the take is that of the
highest tier that the provider's sales of the calendar month have reached. Sales and thresholds are
nano-dollars, takes basis points, months those of UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from broker.core.catalog import Endpoint

PlanScope: TypeAlias = tuple[UUID | None, str | None]
"""A provider, None for any, and a domain, None for any."""


@dataclass(frozen=True, slots=True)
class Tier:
    """From sales of `from_nanos` on, the broker takes `take_bps`."""

    from_nanos: int
    take_bps: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One entry of the plan book; without tiers it ends what stood in its scope before."""

    id: UUID
    provider_id: UUID | None
    domain: str | None
    tiers: tuple[Tier, ...]
    valid_from: datetime
    reason: str
    author: str
    created_at: datetime

    @property
    def scope(self) -> PlanScope:
        """Whom and what it is for."""
        return self.provider_id, self.domain

    def take_bps(self, sales_nanos: int) -> int:
        """Return the take at these sales."""
        reached = [each.take_bps for each in self.tiers if each.from_nanos <= sales_nanos]
        return reached[-1]


@dataclass(frozen=True, slots=True)
class Takes:
    """The plans in force at one moment; `changes_at` is when they will be others."""

    plans: Mapping[PlanScope, Plan] = field(default_factory=dict)
    changes_at: datetime | None = None
    sales_nanos: Mapping[UUID, int] = field(default_factory=dict)
    """By provider, in the calendar month; who is not named has sold nothing."""

    def take(self, provider_id: UUID, own_bps: int) -> tuple[int, dict[str, int]]:
        """Return a provider's take, and by domain where it is another; `own_bps` without a plan."""
        sales = self.sales_nanos.get(provider_id, 0)
        general = self._first((provider_id, None), (None, None))
        usual = own_bps if general is None else general.take_bps(sales)
        domains = {domain for who, domain in self.plans if domain and who in (provider_id, None)}
        by_domain: dict[str, int] = {}
        for domain in domains:
            scopes = ((provider_id, domain), (provider_id, None), (None, domain))
            plan = self._first(*scopes)
            assert plan is not None, "a domain is only there with its plan"
            take_bps = plan.take_bps(sales)
            if take_bps != usual:
                by_domain[domain] = take_bps
        return usual, by_domain

    def _first(self, *scopes: PlanScope) -> Plan | None:
        return next((self.plans[each] for each in scopes if each in self.plans), None)


class Taken:
    """Endpoints with the takes of plans. Whoever did not change stays the same object, for others
    remember things by them."""

    def __init__(self) -> None:
        self._listed: tuple[Endpoint, ...] = ()
        self._taken: tuple[Endpoint, ...] = ()

    def of(self, takes: Takes, listed: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
        """Return the endpoints that are listed with their takes as of now."""
        taken = listed
        if takes.plans:
            before = {id(each): last for each, last in zip(self._listed, self._taken, strict=True)}
            # Of a provider's endpoints mostly all have one take.
            known: dict[tuple[str, int], tuple[int, dict[str, int]]] = {}
            made = []
            for each in listed:
                owner = each.deployment.provider, each.take_bps
                take = known.get(owner)
                if take is None:
                    take = takes.take(each.deployment.provider_id, each.take_bps)
                    known[owner] = take
                last = before.get(id(each), each)
                if (last.take_bps, last.take_bps_by_domain) != take:
                    last = replace(each, take_bps=take[0], take_bps_by_domain=take[1])
                made.append(last)
            taken = tuple(made)
        self._listed, self._taken = listed, taken
        return taken


def in_force(plans: Iterable[Plan], now: datetime) -> dict[PlanScope, Plan]:
    """Return the plan of each scope at `now`: the latest that is valid, none once ended."""
    latest: dict[PlanScope, Plan] = {}
    for plan in sorted(plans, key=_order):
        if plan.valid_from <= now:
            latest[plan.scope] = plan
    return {scope: plan for scope, plan in latest.items() if plan.tiers}


def has_tiers(plans: Iterable[Plan]) -> bool:
    """True when the take of any plan depends on sales."""
    return any(len(each.tiers) > 1 for each in plans)


def takes_at(plans: Sequence[Plan], now: datetime, sales_nanos: Mapping[UUID, int]) -> Takes:
    """Return what holds at `now`. It changes with the next plan, and tiers with the month."""
    current = in_force(plans, now)
    changes = [each.valid_from for each in plans if each.valid_from > now]
    if has_tiers(current.values()):
        changes.append(next_month(now))
    return Takes(current, min(changes, default=None), sales_nanos)


def month_of(moment: datetime) -> datetime:
    """Return the beginning of a moment's calendar month; the moment is in UTC."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def next_month(moment: datetime) -> datetime:
    """Return the beginning of the next calendar month."""
    return month_of(month_of(moment) + timedelta(days=32))


def _order(plan: Plan) -> tuple[datetime, datetime, UUID]:
    return plan.valid_from, plan.created_at, plan.id
