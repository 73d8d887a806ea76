"""The checks of each minute read what came after the last seal, however much there was before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from broker.store.books import invariants

MANY_CALLS = Path(__file__).with_name("many_calls.sql")
CALLS = 30_000
LARGE = ("holds_", "settlements_", "settlement_lines_", "calls_")
HELD = """
INSERT INTO holds (call_id, ledger_account_id, key_id, amount_nanos, created_at, expires_at)
SELECT uuidv7(), uuidv7(), 'key', 5, now() - age, now()
  FROM unnest(ARRAY[interval '1 minute', interval '3 days']) AS age
"""


async def test_a_check_of_the_open_period_reads_no_sealed_months(
    connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await connection.execute(MANY_CALLS.read_text())
    await connection.execute("VACUUM ANALYZE")  # which sums up what pages hold
    async with engine.connect() as asking:
        await invariants.go_by_the_last_seal(asking)
        views = await invariants.view_names(asking, "invariant_")
        assert not [view for view in views if await invariants.alarms_of(asking, view)]
        read = {view: await _rows_read(asking, view) for view in views}
    # Of so small a table one may be read whole, for what few calls are looked up in it.
    assert {view: rows for view, rows in read.items() if rows > CALLS + 1_000} == {}
    assert sum(rows > 0 for rows in read.values()) >= 5, "these look at calls at all"


async def test_a_call_that_is_neither_open_nor_settled_is_found_whether_or_not_the_seal_is_told(
    connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await connection.execute("INSERT INTO seal_periods VALUES (now() - interval '2 days', now())")
    view = "invariant_hold_is_open_or_settled"
    async with engine.connect() as asking:
        await asking.execute(text(HELD))
        untold = await invariants.alarms_of(asking, view)
        await invariants.go_by_the_last_seal(asking)
        told = await invariants.alarms_of(asking, view)
        await asking.rollback()
    assert told == untold
    assert len(told) == 1, "of the two only that after the seal"


async def _rows_read(asking: AsyncConnection, view: str) -> float:
    """Return how many rows of the large tables are looked at, those passed over included."""
    asked = invariants.looking_through(view)
    plan = await asking.scalar(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {asked}"))
    return sum(map(_looked_at, _nodes(plan[0]["Plan"])))


def _looked_at(node: dict[str, Any]) -> float:
    if not node.get("Relation Name", "").startswith(LARGE):
        return 0.0
    rows = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return float(sum(node.get(each, 0) for each in rows) * node["Actual Loops"])


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for part in node.get("Plans", ()):
        yield from _nodes(part)
