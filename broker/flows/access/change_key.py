"""Changes a key that is in use: other terms and budgets, or another secret."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.key_terms import KeyTerms, Scope
from broker.errors import Conflict, RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.access.issue_key import NO_BUDGETS, Change, OwnedKey, note, require_within, told
from broker.store.access import accounts as account_store
from broker.store.access import keys as key_store
from broker.store.access import sessions
from broker.store.access.accounts import Role
from broker.store.access.keys import IssuedKey, ListedKey
from broker.store.books import budgets
from broker.store.books.budgets import Budgets

OVERLAP_S_MAX = 30 * 86_400


async def rotate_key(
    engine: AsyncEngine, caller: Caller, key_id: str, overlap_s: int, now: datetime
) -> IssuedKey:
    """Give a key a new secret; its present one, and what it opened, lasts `overlap_s` seconds more.

    A key may always rotate itself; another only if it could have made it. Raises NotFound,
    NotAllowed, Conflict as `broker.store.access.keys.rotate` does, RequestMalformed for an overlap
    out of bounds.
    """
    async with engine.begin() as connection:
        return await rotate_in(connection, caller, key_id, overlap_s, now)


async def rotate_in(
    connection: AsyncConnection, caller: Caller, key_id: str, overlap_s: int, now: datetime
) -> IssuedKey:
    """Rotate a key in the caller's transaction. Raises as `rotate_key` does."""
    if not 0 <= overlap_s <= OVERLAP_S_MAX:
        raise RequestMalformed(f"overlap_s lies between 0 and {OVERLAP_S_MAX}.")
    former_until = now + timedelta(seconds=overlap_s)
    key = await _own(connection, caller, key_id)
    if key_id != caller.key_id:
        await _require_within(connection, caller, key, key.terms, now)
    rotated = await key_store.rotate(connection, key_id, former_until, now)
    await sessions.shorten_sessions(connection, key_id, former_until)
    detail = {"former_until": former_until.isoformat()}
    await note(connection, caller, Change("rotate_key", key_id, key.account_id, detail), now)
    return rotated


async def change_key(
    engine: AsyncEngine,
    caller: Caller,
    key_id: str,
    change: Callable[[KeyTerms], KeyTerms],
    limits: Budgets | None,
    now: datetime,
) -> OwnedKey:
    """Change what a key may do, and with `limits` all its budgets; return it as it stands then.

    Calls under way go on as they were admitted. Raises NotFound, NotAllowed, Conflict for a key
    that is revoked, RequestMalformed.
    """
    async with engine.begin() as connection:
        key = await _own(connection, caller, key_id)
        if key.revoked_at is not None:
            raise Conflict("The key is revoked.", code="key_revoked")
        terms = change(key.terms)
        if terms.expires_at is not None and terms.expires_at <= now:
            raise RequestMalformed("expires_at has passed.", facts={"fields": ["expires_at"]})
        await _require_within(connection, caller, key, key.terms, now, key.terms.scopes)
        await _require_within(connection, caller, key, terms, now, key.terms.scopes)
        await key_store.set_terms(connection, key_id, terms)
        if limits is not None:
            await budgets.set_budgets(connection, key_id, limits)
        detail = told(terms, limits or NO_BUDGETS)
        await note(connection, caller, Change("change_key", key_id, key.account_id, detail), now)
        changed = await key_store.read(connection, key_id)
        return OwnedKey(changed, await budgets.read_budgets(connection, key_id, now))


async def _own(connection: AsyncConnection, caller: Caller, key_id: str) -> ListedKey:
    owner = None if caller.role is Role.OPERATOR else caller.account_id
    return await key_store.read(connection, key_id, owner=owner)


async def _require_within(
    connection: AsyncConnection,
    caller: Caller,
    key: ListedKey,
    terms: KeyTerms,
    now: datetime,
    had: frozenset[Scope] = frozenset(),
) -> None:
    account = await account_store.by_id(connection, key.account_id)
    await require_within(connection, caller, account.role, terms, now, had)
