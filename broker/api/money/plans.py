"""Plans of the broker's take: operators set and end them, providers see theirs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.api.callers import OPERATORS, allow
from broker.api.once import GivenOnce
from broker.api.parts import GivenCaller, GivenParts, GivenTime
from broker.api.wire import Body, Reply, in_utc
from broker.core.money.takes import Plan, Tier
from broker.flows.money.read_plans import PlanList, read_plans
from broker.flows.money.set_plan import TIERS_MAX, PlanWanted, end_plan, set_plan
from broker.flows.money.wording import REASON_MAX_CHARACTERS
from broker.store.access.accounts import Role
from pricing.money import format_usd, parse_usd_nanos

Reason = Annotated[str, msgspec.Meta(max_length=REASON_MAX_CHARACTERS)]
Domain = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class TierTold(msgspec.Struct, forbid_unknown_fields=True):
    """From this much sold in the calendar month on, the broker takes so many basis points."""

    from_usd: str
    take_bps: Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class PlanAsked(Body):
    """A plan to set, for any provider or domain where none is named; at once without a time."""

    tiers: Annotated[list[TierTold], msgspec.Meta(min_length=1, max_length=TIERS_MAX)]
    reason: Reason
    provider: str | None = None
    domain: Domain | None = None
    valid_from: datetime | None = None


class EndAsked(Body):
    """Why a plan ends."""

    reason: Reason = ""


class PlanShown(Reply):
    """A plan; one without tiers ended what stood for the same provider and domain."""

    id: UUID
    provider: str | None
    domain: str | None
    tiers: list[TierTold]
    valid_from: datetime
    in_force: bool
    reason: str
    author: str
    created_at: datetime


class TakeShown(Reply):
    """What the broker takes of the provider's charges now, and by domain where it is another."""

    take_bps: int
    by_domain: dict[str, int]
    sold_this_month_usd: str


class PlansShown(Reply):
    """Plans, the last written first; `take` is for the provider who asks."""

    plans: list[PlanShown]
    take: TakeShown | None


class PlanWritten(Reply):
    """What was written down."""

    id: UUID
    valid_from: datetime


class PlanController(Controller):
    """`/api/plans`"""

    path = "/plans"
    tags = ("Take",)

    @post(summary="Set a plan of the broker's take", guards=(OPERATORS,))
    async def set(
        self, data: JSONBody[PlanAsked], caller: GivenCaller, now: GivenTime, once: GivenOnce
    ) -> Response[PlanWritten]:
        tiers = tuple(Tier(parse_usd_nanos(each.from_usd), each.take_bps) for each in data.tiers)
        valid_from = in_utc(data.valid_from)
        wanted = PlanWanted(data.provider, data.domain, tiers, valid_from, data.reason)

        async def act(connection: AsyncConnection) -> PlanWritten:
            return _written(await set_plan(connection, caller, wanted, now))

        return await once(act)

    @post("/{plan_id:uuid}/end", summary="End a plan, or call it off", guards=(OPERATORS,))
    async def end(
        self,
        plan_id: FromPath[UUID],
        data: JSONBody[EndAsked],
        caller: GivenCaller,
        now: GivenTime,
        once: GivenOnce,
    ) -> Response[PlanWritten]:
        async def act(connection: AsyncConnection) -> PlanWritten:
            return _written(await end_plan(connection, caller, plan_id, data.reason, now))

        return await once(act)

    @get(summary="List plans of the broker's take", guards=(allow(Role.PROVIDER, Role.OPERATOR),))
    async def list(self, parts: GivenParts, caller: GivenCaller, now: GivenTime) -> PlansShown:
        found = await read_plans(parts.engine, caller, parts.settings.take_bps, now)
        return PlansShown(
            plans=[_shown(each, found) for each in found.plans],
            take=None
            if found.take is None
            else TakeShown(
                take_bps=found.take.take_bps,
                by_domain=dict(found.take.by_domain),
                sold_this_month_usd=format_usd(found.take.sales_nanos),
            ),
        )


def _written(plan: Plan) -> PlanWritten:
    return PlanWritten(id=plan.id, valid_from=plan.valid_from)


def _shown(plan: Plan, found: PlanList) -> PlanShown:
    return PlanShown(
        id=plan.id,
        provider=None if plan.provider_id is None else found.names[plan.provider_id],
        domain=plan.domain,
        tiers=[TierTold(format_usd(each.from_nanos), each.take_bps) for each in plan.tiers],
        valid_from=plan.valid_from,
        in_force=plan.id in found.current,
        reason=plan.reason,
        author=plan.author,
        created_at=plan.created_at,
    )
