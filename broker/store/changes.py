"""Word of a change, heard by every process once the transaction that made it has committed."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.store.away import DATABASE_AWAY
from broker.store.database import sqlalchemy_url

CHANNEL = "market"
KEYS = "keys"
"""Payload: accounts or keys have changed."""
CATALOG = "catalog"
"""Payload: deployments, endpoints or their terms have changed."""

_CONNECT_S = 5.0


async def announce(connection: AsyncConnection, what: str) -> None:
    """Tell all listeners, when this transaction commits and only then, that `what` has changed."""
    await connection.execute(
        text("SELECT pg_notify(:channel, :what)"), {"channel": CHANNEL, "what": what}
    )


class Listener:
    """One connection that hears what is announced; once lost it stays lost."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, database_url: str, heard: Callable[[str], None]) -> Listener:
        """Listen, calling `heard` with each payload. Raises one of DATABASE_AWAY."""
        plain = "postgresql://" + sqlalchemy_url(database_url).partition("://")[2]
        connection = await asyncpg.connect(plain, timeout=_CONNECT_S)
        await connection.add_listener(CHANNEL, lambda *told: heard(str(told[-1])))
        return cls(connection)

    async def alive(self, within_s: float) -> bool:
        """True when the server answers within `within_s`; a half-open connection hears nothing."""
        try:
            await self._connection.execute("SELECT 1", timeout=within_s)
        except DATABASE_AWAY:
            return False
        return True

    def close(self) -> None:
        """Drop the connection without asking the server, which may be away."""
        self._connection.terminate()
