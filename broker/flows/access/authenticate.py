"""Tells who is calling the control plane: from a key, or from a console session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.core.key_terms import KeyTerms, Scope
from broker.errors import CallerUnknown, ScopeMissing
from broker.store.access import keys as key_store
from broker.store.access import sessions as session_store
from broker.store.access.accounts import Role
from broker.store.access.key_text import parse
from broker.store.access.sessions import ConsoleSession

_SEND: Final = "Send 'Authorization: Bearer bk_...' with a key of your account."
KEY_MISSING: Final = f"There is no key in the request. {_SEND}"
NO_KEY: Final = f"That is not a key. {_SEND}"
KEY_DEAD: Final = "The key is wrong, revoked or expired."


@dataclass(frozen=True, slots=True)
class Caller:
    """An account that has proved itself. One with a session from a login link has no key's limits,
    one with a session that a key has opened has the key's."""

    account_id: UUID
    name: str
    role: Role
    key_id: str | None = None
    terms: KeyTerms | None = None
    """Of the key that it called with."""
    expires_at: datetime | None = None

    def require(self, scope: Scope, *others: Scope) -> None:
        """Raise ScopeMissing unless the key has one of these scopes; the first is named."""
        if self.terms is not None and self.terms.scopes.isdisjoint((scope, *others)):
            raise ScopeMissing(scope)


async def by_key(engine: AsyncEngine, text: str, now: datetime) -> Caller:
    """Return whose key this is. Raises CallerUnknown: malformed, wrong, revoked, expired.

    It asks the database each time, so that a key works at once and is dead at once.
    """
    parts = parse(text)
    if parts is None:
        raise CallerUnknown(NO_KEY)
    key_id, secret = parts
    async with engine.connect() as connection:
        key = await key_store.find(connection, key_id, now)
    if key is None or not key.opens(secret, now):
        raise CallerUnknown(KEY_DEAD)
    return Caller(
        account_id=key.account_id,
        name=key.account_name,
        role=key.role,
        key_id=key.id,
        terms=key.terms,
        expires_at=key.terms.expires_at,
    )


async def by_session(engine: AsyncEngine, token: str, now: datetime) -> Caller:
    """Return who is logged in. Raises CallerUnknown: an unknown or expired session."""
    async with engine.connect() as connection:
        session = await session_store.find_session(connection, token, now)
    if session is None:
        raise CallerUnknown("The session has ended; log in again.", code="session_ended")
    return of_session(session)


def of_session(session: ConsoleSession) -> Caller:
    """Return who is logged in with a session."""
    return Caller(
        session.account_id,
        session.name,
        session.role,
        session.key_id,
        session.terms,
        session.expires_at,
    )
