"""One-time login links and console sessions; of each token only the SHA-256 is stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.core.key_terms import KeyTerms
from broker.store.access import keys
from broker.store.access.accounts import Role
from broker.store.tables import accounts, console_sessions, login_links


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """Who is logged in to the console, and the token that a form must carry.

    One that a key has opened may do what the key may, and ends with it.
    """

    account_id: UUID
    name: str
    role: Role
    csrf_token: str
    expires_at: datetime
    key_id: str | None = None
    terms: KeyTerms | None = None
    """The key's."""


async def insert_link(
    connection: AsyncConnection, token: str, account_id: UUID, now: datetime, expires_at: datetime
) -> None:
    """Store a login link."""
    await connection.execute(
        sa.insert(login_links).values(
            token_sha256=_sha256(token),
            account_id=account_id,
            created_at=now,
            expires_at=expires_at,
        )
    )


async def use_link(connection: AsyncConnection, token: str, now: datetime) -> UUID | None:
    """Use a link up and return its account; None when it is unknown, used or expired.

    One statement decides, so of two visitors with one link only one gets in.
    """
    used = await connection.execute(
        sa.update(login_links)
        .where(
            login_links.c.token_sha256 == _sha256(token),
            login_links.c.used_at.is_(None),
            login_links.c.expires_at > now,
        )
        .values(used_at=now)
        .returning(login_links.c.account_id)
    )
    account_id: UUID | None = used.scalar_one_or_none()
    return account_id


async def insert_session(
    connection: AsyncConnection, token: str, session: ConsoleSession, now: datetime
) -> None:
    """Store a session under its token."""
    await connection.execute(
        sa.insert(console_sessions).values(
            token_sha256=_sha256(token),
            account_id=session.account_id,
            csrf_token=session.csrf_token,
            created_at=now,
            expires_at=session.expires_at,
            key_id=session.key_id,
        )
    )


async def find_session(
    connection: AsyncConnection, token: str, now: datetime
) -> ConsoleSession | None:
    """Return the session of a token; None when unknown or expired, when its account is closed, or
    when the key that opened it opens nothing any more."""
    row = (
        await connection.execute(
            sa.select(
                accounts.c.id,
                accounts.c.name,
                accounts.c.role,
                console_sessions.c.csrf_token,
                console_sessions.c.expires_at,
                console_sessions.c.key_id,
            )
            .join(accounts, accounts.c.id == console_sessions.c.account_id)
            .where(
                console_sessions.c.token_sha256 == _sha256(token),
                console_sessions.c.expires_at > now,
                accounts.c.closed_at.is_(None),
            )
        )
    ).one_or_none()
    if row is None:
        return None
    own = (row.id, row.name, Role(row.role), row.csrf_token, row.expires_at)
    if row.key_id is None:
        return ConsoleSession(*own)
    key = await keys.find(connection, row.key_id, now)
    return None if key is None else ConsoleSession(*own, key.id, key.terms)


async def shorten_sessions(connection: AsyncConnection, key_id: str, until: datetime) -> None:
    """Let the sessions that a key has opened end at `until` at the latest."""
    await connection.execute(
        sa.update(console_sessions)
        .where(console_sessions.c.key_id == key_id, console_sessions.c.expires_at > until)
        .values(expires_at=until)
    )


async def delete_session(connection: AsyncConnection, token: str) -> None:
    """End a session; ending one that is not there is no error."""
    await connection.execute(
        sa.delete(console_sessions).where(console_sessions.c.token_sha256 == _sha256(token))
    )


async def delete_expired(connection: AsyncConnection, now: datetime) -> int:
    """Delete expired sessions and links, used links included once expired; return how many."""
    deleted = 0
    for table in (console_sessions, login_links):
        result = await connection.execute(sa.delete(table).where(table.c.expires_at <= now))
        deleted += result.rowcount
    return deleted


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
