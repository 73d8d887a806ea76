"""The fixtures that every integration test stands on."""

import asyncpg
import pytest
import redis.asyncio

from tests.conftest import broken_invariants


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_a_migrated_database_of_its_own(database_url: str, turn: int) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE only_here (number int)")
    tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname='public'")
    await connection.close()
    assert tables > 2


@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_an_empty_valkey(valkey_url: str, turn: int) -> None:
    async with redis.asyncio.from_url(valkey_url) as client:
        # Brokers that several tests share may have written of themselves by now.
        assert await client.get("left") is None
        await client.set("left", "over")


async def test_a_row_in_an_invariant_view_is_an_alarm(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    known = "SELECT count(*) FROM pg_views WHERE viewname LIKE 'invariant%'"
    assert await connection.fetchval(known) >= 5, "the migrations bring the invariants"
    assert await broken_invariants(database_url) == []
    await connection.execute("CREATE VIEW invariant_never AS SELECT 7 AS lost_nanos")
    assert await broken_invariants(database_url) == ["invariant_never: {'lost_nanos': 7}"]
    await connection.execute("DROP VIEW invariant_never")
    await connection.close()
