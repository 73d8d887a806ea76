"""Indexes that came after their partitions."""

from __future__ import annotations

from datetime import date

import asyncpg

from broker.store import late_indexes

PARENTS = (
    "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
    " WHERE indexrelid::regclass::text LIKE '%ed\\_by\\_%' AND indrelid IN"
    " ('settlements'::regclass, 'settlement_lines'::regclass)"
)


async def test_all_partitions_have_all_indexes_and_so_do_those_made_later(
    connection: asyncpg.Connection,
) -> None:
    assert dict(await connection.fetch(PARENTS)) == {
        "settled_by_account": True,
        "settled_by_time": True,
        "earned_by_account": True,
        "earned_by_time": True,
    }
    await connection.execute("SELECT ensure_partitions($1, 2)", date(2040, 1, 1))
    assert await late_indexes.build(connection) == 0
    count = "SELECT count(*) FROM pg_index WHERE indrelid = 'settlements_204002'::regclass"
    assert await connection.fetchval(count) == 3, "its primary key and the two"


async def test_an_index_that_came_late_is_built_beside_the_traffic(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await connection.execute("CREATE INDEX calls_late ON ONLY calls (model)")
    partitions = await connection.fetchval(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'calls'::regclass"
    )
    # What a build that was cut off has left.
    await connection.execute("CREATE INDEX calls_other_calls_late ON calls_other (task)")
    assert await late_indexes.build(connection) == partitions
    assert await late_indexes.build(connection) == 0
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'calls_late'::regclass"
    assert await connection.fetchval(valid)
