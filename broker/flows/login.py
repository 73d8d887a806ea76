"""Logs people in to the console: a one-time link becomes a session."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.errors import CallerUnknown
from broker.store import accounts as account_store
from broker.store import sessions as session_store
from broker.store.sessions import ConsoleSession

LINK_LIFETIME = timedelta(minutes=15)
SESSION_LIFETIME = timedelta(hours=12)
SESSION_COOKIE = "broker_session"


@dataclass(frozen=True, slots=True)
class Login:
    """A new session; `token` goes into the cookie and is never shown again."""

    token: str
    session: ConsoleSession


async def make_link(
    engine: AsyncEngine, account_id: UUID, now: datetime, lifetime: timedelta = LINK_LIFETIME
) -> str:
    """Return the token of a login link that works once, for `lifetime`."""
    token = secrets.token_urlsafe(32)
    async with engine.begin() as connection:
        await session_store.insert_link(connection, token, account_id, now, now + lifetime)
    return token


async def redeem(engine: AsyncEngine, token: str, now: datetime) -> Login:
    """Turn a link's token into a session. Raises CallerUnknown: unknown, used, or expired."""
    async with engine.begin() as connection:
        account_id = await session_store.use_link(connection, token, now)
        if account_id is None:
            raise CallerUnknown(
                "This login link is unknown, was used before, or has expired.",
                code="login_link_invalid",
            )
        return await _open(connection, account_id, now)


async def open_session(engine: AsyncEngine, account_id: UUID, now: datetime) -> Login:
    """Log an account in that has proved itself otherwise, by a key for instance."""
    async with engine.begin() as connection:
        return await _open(connection, account_id, now)


async def close_session(engine: AsyncEngine, token: str) -> None:
    """Log out."""
    async with engine.begin() as connection:
        await session_store.delete_session(connection, token)


async def _open(connection: AsyncConnection, account_id: UUID, now: datetime) -> Login:
    account = await account_store.by_id(connection, account_id)
    if account.closed_at is not None:
        raise CallerUnknown("The account is closed.", code="account_closed")
    session = ConsoleSession(
        account_id=account_id,
        name=account.name,
        role=account.role,
        csrf_token=secrets.token_urlsafe(32),
        expires_at=now + SESSION_LIFETIME,
    )
    token = secrets.token_urlsafe(32)
    await session_store.insert_session(connection, token, session, now)
    return Login(token, session)
