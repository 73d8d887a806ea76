"""Polls the database until a state is reached."""

from __future__ import annotations

import asyncpg

from tests.waiting import until


async def until_blocked(
    watcher: asyncpg.Connection, count: int = 1, timeout_s: float = 15.0
) -> None:
    """Return once `count` backends of this database wait for a lock."""

    async def blocked() -> bool:
        found = await watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(found >= count)

    await until(blocked, timeout_s)


async def until_idle(watcher: asyncpg.Connection, timeout_s: float = 15.0) -> None:
    """Return once no other backend of this database runs a statement."""

    async def idle() -> bool:
        found = await watcher.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'"
        )
        return bool(found == 0)

    await until(idle, timeout_s)
