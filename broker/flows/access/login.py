"""Logs people in to the console: a one-time link becomes a session."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.core.key_terms import Scope
from broker.errors import CallerUnknown
from broker.flows.access.authenticate import Caller
from broker.store.access import accounts as account_store
from broker.store.access import audit
from broker.store.access import sessions as session_store
from broker.store.access.audit import Deed
from broker.store.access.sessions import ConsoleSession

LINK_LIFETIME = timedelta(minutes=15)
SESSION_LIFETIME = timedelta(hours=12)
SESSION_COOKIE = "broker_session"


@dataclass(frozen=True, slots=True)
class Login:
    """A new session; `token` goes into the cookie and is never shown again."""

    token: str
    session: ConsoleSession


async def make_link(engine: AsyncEngine, account_id: UUID, now: datetime) -> str:
    """Return the token of a login link that works once, for LINK_LIFETIME, and have the audit log
    say that the command line made it. Raises NotFound."""
    token = secrets.token_urlsafe(32)
    async with engine.begin() as connection:
        account = await account_store.by_id(connection, account_id)
        await session_store.insert_link(connection, token, account_id, now, now + LINK_LIFETIME)
        deed = Deed("command-line", "make_login_link", f"accounts/{account.name}")
        await audit.record(connection, deed, now)
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


async def open_session(engine: AsyncEngine, caller: Caller, now: datetime) -> Login:
    """Log a caller in that has proved itself by a key: for as long, and for as much, as the key is
    good for. Raises ScopeMissing for a key that may not read."""
    caller.require(Scope.READ)
    async with engine.begin() as connection:
        return await _open(connection, caller.account_id, now, caller.key_id)


async def close_session(engine: AsyncEngine, token: str) -> None:
    """Log out."""
    async with engine.begin() as connection:
        await session_store.delete_session(connection, token)


async def _open(
    connection: AsyncConnection, account_id: UUID, now: datetime, key_id: str | None = None
) -> Login:
    account = await account_store.by_id(connection, account_id)
    if account.closed_at is not None:
        raise CallerUnknown("The account is closed.", code="account_closed")
    session = ConsoleSession(
        account_id=account_id,
        name=account.name,
        role=account.role,
        csrf_token=secrets.token_urlsafe(32),
        expires_at=now + SESSION_LIFETIME,
        key_id=key_id,
    )
    token = secrets.token_urlsafe(32)
    await session_store.insert_session(connection, token, session, now)
    by = "link" if key_id is None else f"keys/{key_id}"
    deed = Deed(account.name, "log_in", f"accounts/{account.name}", {"by": by})
    await audit.record(connection, deed, now)
    return Login(token, session)
