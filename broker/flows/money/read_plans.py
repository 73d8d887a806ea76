"""Reads plans of the broker's take: an operator all, a provider those that are for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.money.takes import Plan, in_force, takes_at
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access.accounts import Role
from broker.store.money import plans


@dataclass(frozen=True, slots=True)
class Take:
    """What the broker takes of a provider's sales now, and what these were in the month."""

    take_bps: int
    by_domain: Mapping[str, int]
    sales_nanos: int


@dataclass(frozen=True, slots=True)
class PlanList:
    """Plans, the last written first; `current` are the ids of those in force."""

    plans: list[Plan]
    current: frozenset[UUID]
    names: Mapping[UUID, str]
    """The providers' names, by id."""
    take: Take | None
    """Of the provider who asks."""


async def read_plans(
    engine: AsyncEngine, caller: Caller, usual_bps: int, now: datetime
) -> PlanList:
    """Return the plans that the caller may see; `usual_bps` is the take without any plan."""
    async with engine.connect() as connection:
        known = await plans.list_plans(connection)
        sales = await plans.sales_of_month(connection, now)
        if caller.role is not Role.OPERATOR:
            known = [each for each in known if each.provider_id in (None, caller.account_id)]
        providers = {each.provider_id for each in known if each.provider_id is not None}
        names = await account_store.names_by_id(connection, providers)
    current = frozenset(each.id for each in in_force(known, now).values())
    take = None
    if caller.role is Role.PROVIDER:
        bps, by_domain = takes_at(known, now, sales).take(caller.account_id, usual_bps)
        take = Take(bps, by_domain, sales.get(caller.account_id, 0))
    return PlanList(known, current, names, take)
