"""Issues, lists and revokes keys: an operator anybody's, everybody else their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.key_terms import NO_ALLOWANCE, KeyTerms, Scope, within
from broker.errors import NotAllowed, NotFound, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access import audit
from broker.store.access import keys as key_store
from broker.store.access.accounts import Account, Role
from broker.store.access.keys import IssuedKey, ListedKey
from broker.store.books import budgets
from broker.store.books.budgets import Budgets, BudgetStanding
from broker.store.webhooks import events
from broker.store.webhooks.events import Event
from pricing.money import format_usd

NO_BUDGETS = Budgets()
_EVENTS = {
    "issue_key": "key.issued",
    "rotate_key": "key.rotated",
    "change_key": "key.changed",
    "revoke_key": "key.revoked",
}


@dataclass(frozen=True, slots=True)
class OwnedKey:
    """A key and where its budgets stand."""

    key: ListedKey
    budgets: list[BudgetStanding]


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to which key of whom."""

    action: Literal["issue_key", "rotate_key", "change_key", "revoke_key"]
    key_id: str
    account_id: UUID
    detail: Mapping[str, object] = field(default_factory=dict)


async def issue_key(
    engine: AsyncEngine,
    caller: Caller,
    account_name: str,
    terms: KeyTerms,
    now: datetime,
    limits: Budgets = NO_BUDGETS,
) -> IssuedKey:
    """Make a key for an account. Raises NotFound, NotAllowed, RequestMalformed."""
    async with engine.begin() as connection:
        return await issue_in(connection, caller, account_name, terms, limits, now)


async def issue_in(
    connection: AsyncConnection,
    caller: Caller,
    account_name: str,
    terms: KeyTerms,
    limits: Budgets,
    now: datetime,
) -> IssuedKey:
    """Make a key in the caller's transaction. Raises as `issue_key` does."""
    if terms.expires_at is not None and terms.expires_at <= now:
        raise RequestMalformed("expires_at has passed.", facts={"fields": ["expires_at"]})
    account = await _account(connection, caller, account_name)
    await require_within(connection, caller, account.role, terms, now)
    issued = await key_store.issue(connection, account.id, terms, now)
    if limits != NO_BUDGETS:
        await budgets.set_budgets(connection, issued.id, limits)
    detail = {"account": account_name, **told(terms, limits)}
    await note(connection, caller, Change("issue_key", issued.id, account.id, detail), now)
    return issued


async def list_keys(
    engine: AsyncEngine, caller: Caller, account_name: str, now: datetime
) -> list[OwnedKey]:
    """Return the keys of an account, newest first, revoked ones too. Raises NotFound."""
    async with engine.connect() as connection:
        account = await _account(connection, caller, account_name)
        listed = await key_store.list_keys(connection, account.id)
        standing = await budgets.read_budgets_of(connection, account.id, now)
    return [OwnedKey(each, standing.get(each.id, [])) for each in listed]


async def revoke_key(engine: AsyncEngine, caller: Caller, key_id: str, now: datetime) -> None:
    """Revoke a key, again without effect. Raises NotFound."""
    owner = None if caller.role is Role.OPERATOR else caller.account_id
    async with engine.begin() as connection:
        key = await key_store.read(connection, key_id, owner=owner)
        if key.revoked_at is None:
            await key_store.revoke(connection, key_id, now)
            await note(connection, caller, Change("revoke_key", key_id, key.account_id), now)


async def note(connection: AsyncConnection, caller: Caller, change: Change, now: datetime) -> None:
    """Write the audit entry of a change of a key, and tell its account of it."""
    place = f"keys/{change.key_id}"
    deed = audit.Deed(caller.name, change.action, place, change.detail)
    await audit.record(connection, deed, now)
    told_of = Event(_EVENTS[change.action], place, change.account_id, change.detail)
    await events.tell(connection, told_of, now)


async def require_within(
    connection: AsyncConnection,
    caller: Caller,
    owner: Role,
    terms: KeyTerms,
    now: datetime,
    had: frozenset[Scope] = frozenset(),
) -> None:
    """Refuse a caller's key to hand out more than it has: no key frees itself by another.

    `owner` is what the account of the other key is, `had` the scopes which that key has already. To
    consumers and providers an operator's key may hand out what it will, but for the scopes that it
    lacks. Raises NotAllowed, naming the limit.
    """
    own = caller.terms
    if own is None:
        return
    if caller.role is Role.OPERATOR and owner is not Role.OPERATOR:
        _require_scopes(own, terms.scopes - had)
        return
    _within_own_limits(own, terms)
    standing = await budgets.read_budgets(connection, caller.key_id or "", now)
    if own.rates is not None or any(each.limit_nanos is not None for each in standing):
        # However small another key's share were, many of them would add up.
        raise NotAllowed("A key with a rate limit or a budget makes and changes no keys.")


def _within_own_limits(own: KeyTerms, terms: KeyTerms) -> None:
    most, last = own.calls_max, own.expires_at
    if most is not None and (terms.calls_max is None or terms.calls_max > most):
        raise NotAllowed(f"The calling key allows only keys with a calls_max of {most} or less.")
    if last is not None and (terms.expires_at is None or terms.expires_at > last):
        latest = f"{last:%Y-%m-%d %H:%M:%S} UTC"
        raise NotAllowed(f"The calling key allows only keys that expire by {latest}.")
    _require_scopes(own, terms.scopes)
    mine, theirs = own.allowance or NO_ALLOWANCE, terms.allowance or NO_ALLOWANCE
    for name in ("models", "providers", "domains"):
        if not within(getattr(mine, name), getattr(theirs, name)):
            names = ", ".join(sorted(getattr(mine, name)))
            raise NotAllowed(f"The calling key allows only keys with {name} out of {names}.")


def _require_scopes(own: KeyTerms, asked: frozenset[Scope]) -> None:
    if not asked <= own.scopes:
        scopes = ", ".join(sorted(own.scopes))
        raise NotAllowed(f"The calling key allows only keys of the scopes {scopes}.")


async def _account(connection: AsyncConnection, caller: Caller, name: str) -> Account:
    if caller.role is not Role.OPERATOR and name != caller.name:
        raise NotFound(f"There is no account '{name}'.")
    return await account_store.by_name(connection, name)


def told(terms: KeyTerms, limits: Budgets) -> dict[str, object]:
    """Return what the audit log says of a key's terms and budgets: whatever is limited."""
    detail: dict[str, object] = {"label": terms.label, "scopes": sorted(terms.scopes)}
    detail |= {"calls_max": terms.calls_max, "content_kept": terms.content_kept}
    detail["explore"] = terms.explore
    detail["expires_at"] = terms.expires_at.isoformat() if terms.expires_at else None
    if terms.rates is not None:
        detail["requests_per_minute"] = terms.rates.requests_per_minute
        detail["tokens_per_minute"] = terms.rates.tokens_per_minute
    for name in ("models", "providers", "domains"):
        allowed = getattr(terms.allowance or NO_ALLOWANCE, name)
        detail[name] = None if allowed is None else sorted(allowed)
    for name, nanos in asdict(limits).items():
        detail[f"budget_{name.removesuffix('_nanos')}_usd"] = (
            None if nanos is None else format_usd(nanos)
        )
    return {name: value for name, value in detail.items() if value is not None}
