"""Who leads the price tick: whoever holds an advisory lock, for as long as its connection lives."""

from __future__ import annotations

import asyncpg
import structlog

from broker.store.away import DATABASE_AWAY, told
from broker.store.database import sqlalchemy_url

_log = structlog.get_logger(__name__)

_LOCK = 0x7469636B  # any number that nothing else locks on
_CONNECT_S = 5.0
_ANSWER_S = 2.0


class Leadership:
    """The lock of one process, on a connection of its own; a lost one is sought again."""

    def __init__(self, database_url: str) -> None:
        self._url = "postgresql://" + sqlalchemy_url(database_url).partition("://")[2]
        self._connection: asyncpg.Connection | None = None
        self._leads = False

    async def held(self) -> bool:
        """Return whether this process leads now, after trying to. A database away means no.

        It is a good guess and no more: the connection may die a moment later, so what a leader
        writes must be fenced by its version.
        """
        try:
            connection = await self._connected()
            if self._leads:
                await connection.execute("SELECT 1", timeout=_ANSWER_S)
            else:
                self._leads = await connection.fetchval(
                    "SELECT pg_try_advisory_lock($1)", _LOCK, timeout=_ANSWER_S
                )
                if self._leads:
                    _log.info("this process leads the price tick")
        except DATABASE_AWAY as error:
            if self._leads:
                _log.warning("this process no longer leads the price tick", reason=told(error))
            self.release()
        return self._leads

    def release(self) -> None:
        """Give up the lock, by ending the connection without asking the server."""
        self._leads = False
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._leads = False
            self._connection = await asyncpg.connect(self._url, timeout=_CONNECT_S)
        return self._connection
