"""Sets and ends plans of the broker's take, which never touches a call admitted before."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.core.money.takes import Plan, Tier, in_force
from broker.errors import Conflict, NotAllowed, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.money.wording import checked_reason
from broker.store import changes
from broker.store.access import accounts as account_store
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.access.audit import Deed
from broker.store.money import plans
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import BPS_WHOLE, format_usd

TIERS_MAX: Final = 20
AHEAD_MAX: Final = timedelta(days=3_660)


@dataclass(frozen=True, slots=True)
class PlanWanted:
    """A plan to be set; None is any provider, any domain, and at once."""

    provider: str | None
    domain: str | None
    tiers: tuple[Tier, ...]
    valid_from: datetime | None
    reason: str


async def set_plan(
    connection: AsyncConnection, author: Caller, wanted: PlanWanted, now: datetime
) -> Plan:
    """Write a plan down, with its audit entry and event.

    From its time on it replaces what stood for the same provider and domain. Raises NotAllowed
    unless the author is an operator, NotFound for an unknown provider, and RequestMalformed with
    code `tiers_malformed`, `valid_from_in_the_past`, `valid_from_too_late`, or as `checked_reason`.
    """
    _require_operator(author)
    _check_tiers(wanted.tiers)
    valid_from = _valid_from(wanted.valid_from, now)
    reason = checked_reason(wanted.reason)
    provider_id = None
    if wanted.provider is not None:
        account = await account_store.by_name(connection, wanted.provider)
        if account.role is not Role.PROVIDER:
            raise NotFound(f"There is no provider named '{wanted.provider}'.")
        provider_id = account.id
    plan = Plan(
        id=uuid7(),
        provider_id=provider_id,
        domain=wanted.domain,
        tiers=wanted.tiers,
        valid_from=valid_from,
        reason=reason,
        author=author.name,
        created_at=now,
    )
    await _write(connection, plan, "set", now)
    return plan


async def end_plan(
    connection: AsyncConnection, author: Caller, plan_id: UUID, reason: str, now: datetime
) -> Plan:
    """End a plan that is in force, or call off one that is still to come; return what was written.

    What is called off leaves what stands before it. A reason may be left out. Raises NotAllowed,
    NotFound, RequestMalformed as `checked_reason` does, and Conflict for a plan that was replaced
    or ended already.
    """
    _require_operator(author)
    reason = checked_reason(reason) if reason.strip() else f"ends {plan_id}"
    known = await plans.list_plans(connection)
    plan = next((each for each in known if each.id == plan_id), None)
    if plan is None:
        raise NotFound("There is no such plan.")
    at = max(now, plan.valid_from)
    if in_force(known, at).get(plan.scope) != plan:
        raise Conflict("The plan was replaced or ended already.", code="plan_over")
    tiers: tuple[Tier, ...] = ()
    if plan.valid_from > now:
        others = [each for each in known if each.valid_from < plan.valid_from]
        before = in_force(others, at).get(plan.scope)
        tiers = before.tiers if before is not None else ()
    ending = replace(
        plan,
        id=uuid7(),
        tiers=tiers,
        valid_from=at,
        reason=reason,
        author=author.name,
        created_at=now,
    )
    await _write(connection, ending, "ended", now)
    return ending


async def _write(connection: AsyncConnection, plan: Plan, verb: str, now: datetime) -> None:
    await plans.add(connection, plan)
    names = {}
    if plan.provider_id is not None:
        names = await account_store.names_by_id(connection, [plan.provider_id])
    told = {
        "provider": names.get(plan.provider_id) if plan.provider_id else None,
        "domain": plan.domain,
        "tiers": told_tiers(plan.tiers),
        "valid_from": plan.valid_from.isoformat(),
        "reason": plan.reason,
    }
    action = {"set": "set_plan", "ended": "end_plan"}[verb]
    await audit.record(connection, Deed(plan.author, action, f"plans/{plan.id}", told), now)
    event = Event(f"plan.{verb}", f"plans/{plan.id}", plan.provider_id, told)
    await events.tell(connection, event, now)
    await changes.announce(connection, changes.CATALOG)


def told_tiers(tiers: Sequence[Tier]) -> list[dict[str, object]]:
    """Return tiers as they stand in messages."""
    return [{"from_usd": format_usd(each.from_nanos), "take_bps": each.take_bps} for each in tiers]


def _require_operator(author: Caller) -> None:
    if author.role is not Role.OPERATOR:
        raise NotAllowed("Only an operator sets plans of the broker's take.")


def _check_tiers(tiers: Sequence[Tier]) -> None:
    places = [each.from_nanos for each in tiers]
    sound = (
        0 < len(tiers) <= TIERS_MAX
        and places[0] == 0
        and all(low < high for low, high in itertools.pairwise(places))
        and all(0 <= each.take_bps <= BPS_WHOLE for each in tiers)
    )
    if not sound:
        raise RequestMalformed(
            f"A plan has 1 to {TIERS_MAX} tiers, the first from 0.00 USD on and each further one "
            f"from more, with takes of 0 to {BPS_WHOLE} basis points.",
            code="tiers_malformed",
        )


def _valid_from(wanted: datetime | None, now: datetime) -> datetime:
    if wanted is None:
        return now
    if wanted < now:
        raise RequestMalformed(
            "A plan never touches past calls: valid_from lies in the past.",
            code="valid_from_in_the_past",
        )
    if wanted > now + AHEAD_MAX:
        raise RequestMalformed(
            f"valid_from is at most {AHEAD_MAX.days} days ahead.", code="valid_from_too_late"
        )
    return wanted
