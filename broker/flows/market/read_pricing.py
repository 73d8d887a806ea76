"""Reads which controllers were chosen, and which of them moves the price of each endpoint now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.market import Market
from broker.flows.access.authenticate import Caller
from broker.flows.market.choose_pricing import choice_of
from broker.flows.market.measure import member_of
from broker.store.access.accounts import Role
from broker.store.market import pricing_choices
from broker.store.market.pricing_choices import StoredChoice
from pricing.choice import Choice, Scope, choice_for, in_force

Standing = Mapping[tuple[Scope, str], Choice]
"""The choice in force for each subject."""


@dataclass(frozen=True, slots=True)
class MovedBy:
    """An endpoint, the controller that moves its price, and the scope of the choice."""

    endpoint: str
    controller: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Pricing:
    """Choices in the order of their beginnings; `current` are the ids of those in force."""

    choices: list[StoredChoice]
    current: frozenset[UUID]
    endpoints: list[MovedBy]


async def read_pricing(
    engine: AsyncEngine, market: Market, caller: Caller, now: datetime
) -> Pricing:
    """Return what is chosen: for an operator all, for a provider what concerns its endpoints, which
    of a large market is looked up in a thread."""
    async with engine.connect() as connection:
        stored = await pricing_choices.list_open(connection, now)
    made = [(each, choice_of(each)) for each in stored]
    standing = in_force([choice for _, choice in made], now.timestamp())
    holding = {id(choice) for choice in standing.values()}
    every = caller.role is Role.OPERATOR
    return Pricing(
        choices=[each for each in stored if every or each.provider_id in (None, caller.account_id)],
        current=frozenset(each.id for each, choice in made if id(choice) in holding),
        endpoints=await asyncio.to_thread(_moved, market, caller, standing),
    )


def _moved(
    market: Market, caller: Caller, standing: Mapping[tuple[Scope, str], Choice]
) -> list[MovedBy]:
    every = caller.role is Role.OPERATOR
    moved = []
    for endpoint in map(market.endpoint, market.by_name.values()):
        if every or endpoint.deployment.provider_id == caller.account_id:
            choice = choice_for(member_of(endpoint), standing)
            moved.append(MovedBy(endpoint.name, choice.controller, choice.scope))
    return moved
