"""The nightly replay reads each table a fixed number of times, and folds within bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from sqlalchemy import text

from broker.flows.books.check import check, check_views
from broker.store.books.invariants import alarms_of, looking_through
from broker.store.database import create_engine

WORK_MEM_KB = 256

MANY_BOOKS = Path(__file__).with_name("many_books.sql")


@pytest.fixture
async def filled(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Books with many accounts, calls and seals."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(MANY_BOOKS.read_text())
    await connection.execute(f"SET work_mem = {WORK_MEM_KB}; SET jit = off")
    yield connection
    await connection.close()


async def test_the_replay_is_bounded_in_memory_and_in_reading(
    filled: asyncpg.Connection, database_url: str
) -> None:
    engine = create_engine(database_url, connections_max=1)
    checked = await check_views(engine, replay=True)
    assert not [alarm for each in checked for alarm in each.alarms]
    spilled = 0
    for view in (each.view for each in checked if each.view.startswith("replay_")):
        nodes = list(_nodes(await _plan(filled, view)))
        reads = sum(node["Actual Loops"] for node in nodes if _reads(node, "settlement_lines"))
        # Three legs of each line, in each partition; a seal or an account more is no read more.
        assert reads <= 3 * 8, view
        for node in nodes:
            memory_kb = node.get("Peak Memory Usage", 0)
            assert memory_kb <= 4 * WORK_MEM_KB, (view, node["Node Type"], memory_kb)
        spilled += max(node.get("Temp Written Blocks", 0) for node in nodes)
    assert spilled, "there is so much that it does not fit, or this shows nothing"
    await engine.dispose()


async def test_a_seal_that_is_false_or_missing_is_found(
    filled: asyncpg.Connection, database_url: str
) -> None:
    engine = create_engine(database_url, connections_max=1)
    row = await filled.fetchrow(
        "SELECT ledger_account_id, sealed_before FROM seals WHERE posted_nanos = 900"
        " ORDER BY sealed_before, ledger_account_id LIMIT 1"
    )
    where = "WHERE ledger_account_id = $1 AND sealed_before = $2"
    await filled.execute("SET session_replication_role = replica")
    for change in (
        f"UPDATE seals SET posted_nanos = posted_nanos + 1 {where}",
        f"DELETE FROM seals {where}",
    ):
        async with _undone(filled):
            await filled.execute(change, *row)
            found = await filled.fetch("SELECT * FROM replay_balance_is_its_entries")
            assert [(each[0], each[1]) for each in found] == [tuple(row)]
            assert found[0]["folded_nanos"] == 900
    assert not await check(engine, replay=True)
    await engine.dispose()


async def test_what_is_looked_through_is_read_from_end_to_end(database_url: str) -> None:
    engine = create_engine(database_url, connections_max=1)
    async with engine.connect() as connection:
        for statement in _SCATTERED:
            await connection.execute(text(statement))
        assert not await alarms_of(connection, "doubled")
        assert await connection.scalar(text(_LOOKED_UP)) == 0, "row by row in an index's order"
    await engine.dispose()


_SCATTERED = (
    "CREATE TEMP TABLE scattered (id integer, rest text)",
    "INSERT INTO scattered SELECT hashint4(n), repeat('.', 100) FROM generate_series(1, 20000) n",
    "CREATE INDEX ON scattered (id)",
    "ANALYZE scattered",
    "CREATE TEMP VIEW doubled AS SELECT id FROM scattered GROUP BY 1 HAVING count(rest) > 3",
)
_LOOKED_UP = "SELECT idx_scan FROM pg_stat_xact_user_tables WHERE relname = 'scattered'"


class _undone:  # noqa: N801 - reads as a word
    """A transaction that is rolled back at the end of the block."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._transaction = connection.transaction()

    async def __aenter__(self) -> None:
        await self._transaction.start()

    async def __aexit__(self, *_: object) -> None:
        await self._transaction.rollback()


async def _plan(connection: asyncpg.Connection, view: str) -> dict[str, Any]:
    told = await connection.fetchval(
        f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {looking_through(view)}"
    )
    plan: dict[str, Any] = msgspec.json.decode(told)[0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def _reads(node: dict[str, Any], table: str) -> bool:
    return str(node.get("Relation Name", "")).startswith(table)
