"""Controllers of prices: operators choose for anybody, providers for themselves."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api import beside
from broker.api.callers import allow
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenMarket, GivenParts, GivenTime
from broker.api.wire import Body, Reply, in_utc
from broker.flows.market.choose_pricing import (
    REASON_MAX_CHARACTERS,
    ChoiceWanted,
    Clock,
    choose_pricing,
    end_choice,
)
from broker.flows.market.read_pricing import Pricing, read_pricing
from broker.store.access.accounts import Role
from broker.store.market.pricing_choices import StoredChoice
from pricing.choice import Scope

Text = Annotated[str, msgspec.Meta(max_length=200)]


class ChoiceAsked(Body):
    """A controller for the market, or for the domain, provider or endpoint named as `subject`."""

    scope: Scope
    controller: Text
    subject: Text = ""
    parameters: Annotated[dict[Text, float], msgspec.Meta(max_length=50)] = msgspec.field(
        default_factory=dict
    )
    schedule: Clock | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    reason: Annotated[str, msgspec.Meta(max_length=REASON_MAX_CHARACTERS)] = ""


class ChoiceShown(Reply):
    """A choice; `in_force` is false where it is to come, or another lies over it."""

    id: UUID
    scope: Scope
    subject: str
    controller: str
    parameters: dict[str, float]
    schedule: dict[str, Any] | None
    valid_from: datetime
    valid_to: datetime | None
    in_force: bool
    reason: str
    author: str
    created_at: datetime


class EndpointMoved(Reply):
    """Which controller moves an endpoint's price now, and for whom it was chosen."""

    endpoint: str
    controller: str
    scope: Scope


class PricingShown(Reply):
    """What is chosen, in the order of beginnings, and what comes of it."""

    choices: list[ChoiceShown]
    endpoints: list[EndpointMoved]


class ChoiceWritten(Reply):
    """What was written down."""

    id: UUID
    valid_from: datetime


class PricingController(Controller):
    """`/api/pricing`"""

    path = "/pricing"
    tags = ("Prices",)
    guards = (allow(Role.PROVIDER, Role.OPERATOR),)

    @get(summary="Which controller moves whose prices")
    async def now(
        self, parts: GivenParts, market: GivenMarket, caller: GivenCaller, now: GivenTime
    ) -> Response[PricingShown]:
        found = await read_pricing(parts.engine, market, caller, now)
        return await beside.answer(partial(_all_shown, found))

    @post(summary="Choose a controller")
    async def choose(
        self, data: JSONBody[ChoiceAsked], caller: GivenCaller, now: GivenTime, once: GivenOnce
    ) -> Response[ChoiceWritten]:
        wanted = ChoiceWanted(
            scope=data.scope,
            subject=data.subject,
            controller=data.controller,
            parameters=data.parameters,
            schedule=data.schedule,
            valid_from=in_utc(data.valid_from),
            valid_to=in_utc(data.valid_to),
            reason=data.reason,
        )

        async def act(connection: AsyncConnection) -> ChoiceWritten:
            return _written(await choose_pricing(connection, caller, wanted, now))

        return await once(act)

    @post("/{choice_id:uuid}/end", summary="End a choice, or call it off")
    async def end(
        self, choice_id: FromPath[UUID], caller: GivenCaller, now: GivenTime, once: GivenOnce
    ) -> Response[ChoiceWritten]:
        async def act(connection: AsyncConnection) -> ChoiceWritten:
            return _written(await end_choice(connection, caller, choice_id, now))

        return await once(act)


def _written(choice: StoredChoice) -> ChoiceWritten:
    return ChoiceWritten(id=choice.id, valid_from=choice.valid_from)


def _all_shown(found: Pricing) -> PricingShown:
    return PricingShown(
        choices=[_shown(each, each.id in found.current) for each in found.choices],
        endpoints=[
            EndpointMoved(endpoint=each.endpoint, controller=each.controller, scope=each.scope)
            for each in found.endpoints
        ],
    )


def _shown(choice: StoredChoice, in_force: bool) -> ChoiceShown:
    return ChoiceShown(
        id=choice.id,
        scope=Scope(choice.scope),
        subject=choice.subject,
        controller=choice.controller,
        parameters=dict(choice.parameters),
        schedule=None if choice.schedule is None else dict(choice.schedule),
        valid_from=choice.valid_from,
        valid_to=choice.valid_to,
        in_force=in_force,
        reason=choice.reason,
        author=choice.author,
        created_at=choice.created_at,
    )
