"""A statement of too many entries is refused for what few more than enough of them tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.errors import RequestMalformed
from broker.flows.access.authenticate import Caller
from broker.flows.money.statement import ENTRIES_MAX, every_entry
from broker.store.access.accounts import Role
from broker.store.books.statements import Span, exceed
from broker.store.database import create_engine

MANY_CALLS = Path(__file__).with_name("many_calls.sql")
CALLS = 30_000
READ = """
SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
 WHERE relname LIKE 'settlement%'
"""
CHARGES = """
INSERT INTO settlements (call_id, ledger_account_id, kind, hold_nanos, charge_nanos, held_at,
                         settled_at)
SELECT uuidv7(), $1, 'captured', 1, 1, now(), now() FROM generate_series(1, $2)
"""
AGAIN = """
INSERT INTO settlement_lines
SELECT (jsonb_populate_record(l, '{"attempt": 1}')).* FROM settlement_lines l LIMIT 1
"""


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database_url, connections_max=1)
    yield engine
    await engine.dispose()


async def test_whether_there_are_too_many_entries_is_known_from_few_more_than_enough(
    connection: asyncpg.Connection, engine: AsyncEngine
) -> None:
    await connection.execute(MANY_CALLS.read_text())
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(AGAIN)
    await connection.execute("VACUUM ANALYZE settlements, settlement_lines")
    funds, earnings = await connection.fetchrow("SELECT funds, earnings FROM purse")
    for purse, entries in ((funds, CALLS + 1), (earnings, CALLS)):
        async with engine.connect() as asking:
            before = await asking.scalar(text(READ))
            assert await exceed(asking, [purse], Span(), 1_000)
            assert await asking.scalar(text(READ)) - before < 3_000
            assert await exceed(asking, [purse], Span(), entries - 1)
            assert not await exceed(asking, [purse], Span(), entries), "a call is one entry"


async def test_a_statement_too_long_is_refused_before_it_is_put_in_order(
    connection: asyncpg.Connection, engine: AsyncEngine, consumer: UUID
) -> None:
    account = await connection.fetchrow(
        "SELECT a.id, a.name FROM accounts a JOIN ledger_accounts l ON l.owner_id = a.id"
        " WHERE l.id = $1",
        consumer,
    )
    asked: list[str] = []

    def note(*told: object) -> None:
        asked.append(str(told[2]))

    await connection.execute("SET session_replication_role = replica")
    await connection.execute(CHARGES, consumer, ENTRIES_MAX + 1)
    try:
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        with pytest.raises(RequestMalformed) as caught:
            async for _ in every_entry(engine, Caller(*account, Role.CONSUMER), Span()):
                pass
    finally:
        await connection.execute("DELETE FROM settlements")  # for they belong to no calls
    assert caught.value.code == "statement_too_long"
    [counted] = [each for each in asked if "FROM settlements" in each]
    assert counted.startswith("SELECT count(*)")
