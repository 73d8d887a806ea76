"""Builds indexes that a migration brought after their partitions had grown large."""

from __future__ import annotations

import structlog

from broker.store.ledger import Connection

_log = structlog.get_logger()


async def build(connection: Connection) -> int:
    """Build each index that a partition lacks while it is read and written; return how many.

    `connection` must be in no transaction. What a build that was cut off has left is dropped first.
    """
    missing = await connection.fetch("SELECT name, build, attach FROM missing_indexes")
    for row in missing:
        _log.info("index_building", index=row["name"])
        await connection.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{row["name"]}"')
        await connection.execute(row["build"])
        await connection.execute(row["attach"])
    return len(missing)
