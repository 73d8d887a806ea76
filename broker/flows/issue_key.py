"""Issues, lists and revokes keys: an operator anybody's, everybody else their own."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import NotAllowed, NotFound, RequestMalformed
from broker.flows.authenticate import Caller
from broker.store import accounts as account_store
from broker.store import audit
from broker.store import keys as key_store
from broker.store.accounts import Account, Role
from broker.store.keys import IssuedKey, KeyTerms, ListedKey


async def issue_key(
    engine: AsyncEngine, caller: Caller, account_name: str, terms: KeyTerms, now: datetime
) -> IssuedKey:
    """Make a key for an account. Raises NotFound, NotAllowed, RequestMalformed."""
    if terms.expires_at is not None and terms.expires_at <= now:
        raise RequestMalformed("expires_at has passed.", facts={"fields": ["expires_at"]})
    _within_own_limits(caller, terms)
    async with engine.begin() as connection:
        account = await _account(connection, caller, account_name)
        issued = await key_store.issue(connection, account.id, terms, now)
        detail = {"account": account_name, "label": terms.label}
        deed = audit.Deed(caller.name, "issue_key", f"keys/{issued.id}", detail)
        await audit.record(connection, deed, now)
    return issued


async def list_keys(engine: AsyncEngine, caller: Caller, account_name: str) -> list[ListedKey]:
    """Return the keys of an account, newest first, revoked ones too. Raises NotFound."""
    async with engine.connect() as connection:
        account = await _account(connection, caller, account_name)
        return await key_store.list_keys(connection, account.id)


async def revoke_key(engine: AsyncEngine, caller: Caller, key_id: str, now: datetime) -> None:
    """Revoke a key, again without effect. Raises NotFound."""
    owner = None if caller.role is Role.OPERATOR else caller.account_id
    async with engine.begin() as connection:
        await key_store.revoke(connection, key_id, now, owner=owner)
        deed = audit.Deed(caller.name, "revoke_key", f"keys/{key_id}")
        await audit.record(connection, deed, now)


async def _account(connection: AsyncConnection, caller: Caller, name: str) -> Account:
    if caller.role is not Role.OPERATOR and name != caller.name:
        raise NotFound("There is no such account.")
    return await account_store.by_name(connection, name)


def _within_own_limits(caller: Caller, terms: KeyTerms) -> None:
    """A key must not free itself of its own limits by making another."""
    if caller.role is Role.OPERATOR or caller.key_id is None:
        return
    most, last = caller.calls_max, caller.expires_at
    if most is not None and (terms.calls_max is None or terms.calls_max > most):
        raise NotAllowed(f"The calling key allows only keys with a calls_max of {most} or less.")
    if last is not None and (terms.expires_at is None or terms.expires_at > last):
        raise NotAllowed(f"The calling key allows only keys that expire by {last.isoformat()}.")
