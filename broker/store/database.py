"""Connections to PostgreSQL: SQLAlchemy's engine, and a bare asyncpg pool for the ledger."""

from __future__ import annotations

import contextlib
from typing import Final

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from broker.errors import SettingInvalid

_CLOSE_S: Final = 0.2
"""To hear a server say farewell, of which nothing depends."""


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg tells no types
    """One that can be closed though its server hangs."""

    async def close(self, *, timeout: float | None = None) -> None:
        with contextlib.suppress(TimeoutError):
            await super().close(timeout=_CLOSE_S if timeout is None else timeout)


class _Borrowed(_Connection):
    """One whose borrowers leave the session as they found it: to have it reset each time would cost
    the calls under an `Idempotency-Key` a tenth of their time, and the server a question more."""

    def get_reset_query(self) -> str:
        return ""


def sqlalchemy_url(database_url: str) -> str:
    """Return `database_url` in the form SQLAlchemy wants for asyncpg. Raises SettingInvalid."""
    scheme, told, rest = database_url.partition("://")
    if not told or scheme not in ("postgres", "postgresql", "postgresql+asyncpg"):
        raise SettingInvalid("DATABASE_URL must begin with postgresql://.")
    url = f"postgresql+asyncpg://{rest}"
    try:
        make_url(url)
    except (ArgumentError, ValueError):
        # Nothing of it is told: there may be a password in it.
        raise SettingInvalid(
            "DATABASE_URL is not written postgresql://user:password@host:port/name."
        ) from None
    return url


def create_engine(database_url: str, connections_max: int = 10) -> AsyncEngine:
    """Return an engine; it connects when first used."""
    return create_async_engine(
        sqlalchemy_url(database_url),
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        connect_args={"connection_class": _Connection},
    )


async def create_pool(database_url: str, connections_max: int = 6) -> asyncpg.Pool:
    """Return a pool of bare connections, for statements prepared once and run by the thousand.

    Whoever changes a session's settings or takes a lock for longer than a transaction undoes that
    before giving it back.
    """
    plain = "postgresql://" + sqlalchemy_url(database_url).partition("://")[2]
    # No least size: to keep one, the pool would log a traceback whenever the database is away.
    return await asyncpg.create_pool(
        plain, min_size=0, max_size=connections_max, timeout=5, connection_class=_Borrowed
    )
