"""Tells who is calling the control plane: from a key, or from a console session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import CallerUnknown
from broker.store import keys as key_store
from broker.store import sessions as session_store
from broker.store.accounts import Role


@dataclass(frozen=True, slots=True)
class Caller:
    """An account that has proved itself. A session carries no key, so none of a key's limits."""

    account_id: UUID
    name: str
    role: Role
    key_id: str | None = None
    calls_max: int | None = None
    expires_at: datetime | None = None


async def by_key(engine: AsyncEngine, text: str, now: datetime) -> Caller:
    """Return whose key this is. Raises CallerUnknown: malformed, wrong, revoked, expired.

    It asks the database each time, so that a key works at once and is dead at once.
    """
    parts = key_store.parse(text)
    if parts is None:
        raise CallerUnknown("A key looks like bk_<id>_<secret>.")
    key_id, secret = parts
    async with engine.connect() as connection:
        key = await key_store.find(connection, key_id, now)
    if key is None or not key.opens(secret, now):
        raise CallerUnknown("The key is wrong, revoked or expired.")
    return Caller(
        account_id=key.account_id,
        name=key.account_name,
        role=key.role,
        key_id=key.id,
        calls_max=key.calls_max,
        expires_at=key.expires_at,
    )


async def by_session(engine: AsyncEngine, token: str, now: datetime) -> Caller:
    """Return who is logged in. Raises CallerUnknown: an unknown or expired session."""
    async with engine.connect() as connection:
        session = await session_store.find_session(connection, token, now)
    if session is None:
        raise CallerUnknown("The session has ended; log in again.", code="session_ended")
    return Caller(session.account_id, session.name, session.role, expires_at=session.expires_at)
