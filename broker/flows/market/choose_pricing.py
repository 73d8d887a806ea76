"""Chooses which controller moves whose prices, from when until when; and ends a choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from broker.errors import Conflict, NotAllowed, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access import audit
from broker.store.access.accounts import Role
from broker.store.access.audit import Deed
from broker.store.market import endpoint_names, pricing_choices
from broker.store.market.pricing_choices import StoredChoice
from broker.store.quality import domains
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.choice import Choice, ChoiceMalformed, Scope
from pricing.schedule import STEPS_MAX, Schedule, ScheduleMalformed, schedule_of

AHEAD_MAX: Final = timedelta(days=3_660)
REASON_MAX_CHARACTERS: Final = 500


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """From this time of the day on, the list price is multiplied; on every day where none is."""

    begins: Annotated[str, msgspec.Meta(max_length=10)] = msgspec.field(name="from")
    factor: float
    days: list[str] | None = None


class Clock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule as it is told: list prices by the clock."""

    steps: Annotated[list[Step], msgspec.Meta(min_length=1, max_length=STEPS_MAX)]
    utc_offset_minutes: int = 0


@dataclass(frozen=True, slots=True)
class ChoiceWanted:
    """A choice to be made; at once and for good where no time is given."""

    scope: Scope
    subject: str
    controller: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    schedule: Clock | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    reason: str = ""


async def choose_pricing(
    connection: AsyncConnection, author: Caller, wanted: ChoiceWanted, now: datetime
) -> StoredChoice:
    """Write a choice down, with its audit entry and event; it holds from the next tick on.

    An operator chooses for anybody, a provider for itself and its endpoints. Raises NotAllowed,
    NotFound for whom there is not, RequestMalformed with the name of the field, and Conflict when
    too many choices are open.
    """
    provider_id = await _owner(connection, author, wanted)
    valid_from = wanted.valid_from or now
    if not now <= valid_from <= now + AHEAD_MAX:
        raise _malformed("valid_from", "lies in the past, or too far ahead.")
    if len(wanted.reason) > REASON_MAX_CHARACTERS:
        raise _malformed("reason", f"has more than {REASON_MAX_CHARACTERS} characters.")
    chosen = StoredChoice(
        id=uuid7(),
        scope=wanted.scope.value,
        subject=wanted.subject,
        provider_id=provider_id,
        controller=wanted.controller,
        parameters=wanted.parameters,
        schedule=None if wanted.schedule is None else msgspec.to_builtins(wanted.schedule),
        valid_from=valid_from,
        valid_to=wanted.valid_to,
        reason=wanted.reason,
        author=author.name,
        created_at=now,
    )
    try:
        choice_of(chosen)
    except (ChoiceMalformed, ScheduleMalformed) as error:
        at = error.field if isinstance(error, ChoiceMalformed) else "schedule"
        told = error.detail if isinstance(error, ChoiceMalformed) else str(error)
        raise _malformed(at, f"{told}.") from None
    if len(await pricing_choices.list_open(connection, now)) >= pricing_choices.OPEN_MAX:
        raise Conflict("Too many choices are open; end some first.", code="too_many_choices")
    await pricing_choices.add(connection, chosen)
    await _tell(connection, chosen, ("choose_pricing", "pricing.chosen"), author, now)
    return chosen


async def end_choice(
    connection: AsyncConnection, author: Caller, choice_id: UUID, now: datetime
) -> StoredChoice:
    """End a choice, or call one off that is to come: what it lay over is in force again.

    Raises NotFound, also for what is not the author's to end, and Conflict when it is over.
    """
    choice = await pricing_choices.find(connection, choice_id)
    own = choice is not None and author.account_id == choice.provider_id
    if choice is None or not (own or author.role is Role.OPERATOR):
        raise NotFound("There is no such choice.")
    if not await pricing_choices.end(connection, choice_id, author.name, now):
        raise Conflict("The choice is over already.", code="choice_over")
    await _tell(connection, choice, ("end_pricing", "pricing.ended"), author, now)
    return choice


def choice_of(stored: StoredChoice) -> Choice:
    """Return a choice as the price tick goes by it. Raises ChoiceMalformed, ScheduleMalformed."""
    return Choice(
        scope=Scope(stored.scope),
        subject=stored.subject,
        controller=stored.controller,
        parameters=stored.parameters,
        schedule=None if stored.schedule is None else _schedule_of(stored.schedule),
        valid_from_s=stored.valid_from.timestamp(),
        valid_to_s=math.inf if stored.valid_to is None else stored.valid_to.timestamp(),
    )


def _schedule_of(told: Mapping[str, Any]) -> Schedule:
    return schedule_of(told["steps"], told.get("utc_offset_minutes", 0))


async def _owner(connection: AsyncConnection, author: Caller, wanted: ChoiceWanted) -> UUID | None:
    """Return whose prices the choice moves, None for those of many."""
    if wanted.scope in (Scope.MARKET, Scope.DOMAIN):
        if author.role is not Role.OPERATOR:
            raise NotAllowed(f"Only an operator chooses for a {wanted.scope}.")
        if wanted.scope is Scope.DOMAIN and wanted.subject:
            await _require_domain(connection, wanted.subject)
        return None
    if wanted.scope is Scope.ENDPOINT:
        named = await endpoint_names.by_name(connection, wanted.subject)
        owner = named[0].provider_id if named else None
    else:
        owner = await _provider(connection, wanted.subject)
    if owner is None or (author.role is not Role.OPERATOR and owner != author.account_id):
        raise NotFound(f"There is no {wanted.scope} named '{wanted.subject}'.")
    return owner


async def _require_domain(connection: AsyncConnection, name: str) -> None:
    if not await domains.is_known(connection, name):
        told = f"There is no domain named '{name}': it is not taught, and no endpoint claims it."
        raise NotFound(told)


async def _provider(connection: AsyncConnection, name: str) -> UUID | None:
    try:
        account = await account_store.by_name(connection, name)
    except NotFound:
        return None
    return account.id if account.role is Role.PROVIDER else None


async def _tell(
    connection: AsyncConnection,
    choice: StoredChoice,
    words: tuple[str, str],
    author: Caller,
    now: datetime,
) -> None:
    """Write the audit entry and the event; `words` are the action and the kind."""
    action, kind = words
    told = {
        "scope": choice.scope,
        "subject": choice.subject,
        "controller": choice.controller,
        "parameters": dict(choice.parameters),
        "schedule": choice.schedule,
        "valid_from": choice.valid_from.isoformat(),
        "valid_to": None if choice.valid_to is None else choice.valid_to.isoformat(),
        "reason": choice.reason,
    }
    target = f"pricing_choices/{choice.id}"
    await audit.record(connection, Deed(author.name, action, target, told), now)
    await events.tell(connection, Event(kind, target, choice.provider_id, told), now)


def _malformed(at: str, told: str) -> RequestMalformed:
    return RequestMalformed(f"{at}: {told}", facts={"field": at})
