"""The revision of receipts: books with money and seals replay before and after it alike."""

from __future__ import annotations

import asyncpg
import pytest

from tests.integration.migrations.upgrading import DatabaseAt, insert_account

_REPLAYS = "SELECT viewname FROM pg_views WHERE viewname LIKE 'replay\\_%' ORDER BY 1"


async def insert_books(driver: asyncpg.Connection) -> None:
    """A top-up, a hold that is open, and a seal over the first of it."""
    _, funds = await insert_account(driver, "consumer", "shop")
    world = await driver.fetchval("SELECT id FROM ledger_accounts WHERE kind = 'world'")
    await driver.execute(
        "INSERT INTO transfers (id, debit_id, credit_id, amount_nanos, kind, author, created_at)"
        " VALUES (uuidv7(), $1, $2, 1000, 'topup', 'test', now() - interval '3 hours')",
        *(world, funds),
    )
    held = "VALUES (uuidv7(), $1, 'key', 400, now(), now() + interval '1 hour')"
    await driver.execute(
        "WITH made AS (INSERT INTO holds"
        " (call_id, ledger_account_id, key_id, amount_nanos, created_at, expires_at)"
        f" {held} RETURNING *)"
        " INSERT INTO open_holds"
        " (call_id, ledger_account_id, process_id, amount_nanos, created_at, expires_at)"
        " SELECT call_id, ledger_account_id, 1, amount_nanos, created_at, expires_at FROM made",
        funds,
    )
    for account, posted, held_nanos in ((funds, 1000, 400), (world, -1000, 0)):
        await driver.execute(
            "UPDATE balances SET posted_nanos = $2, held_nanos = $3 WHERE ledger_account_id = $1",
            *(account, posted, held_nanos),
        )
    await driver.execute("INSERT INTO seal_periods VALUES (now() - interval '2 hours', now())")
    await driver.execute(
        "INSERT INTO seals SELECT ledger_account_id, sealed_before, posted_nanos"
        " FROM balances, seal_periods"
    )


async def test_books_with_money_replay_before_and_after(database_at: DatabaseAt) -> None:
    async with database_at("0008") as old:
        await insert_books(old.driver)
        before = {row[0] for row in await old.driver.fetch(_REPLAYS)}
        await old.upgrade("0009")
        after = {row[0] for row in await old.driver.fetch(_REPLAYS)}
        assert after - before == {"replay_held_is_its_holds", "replay_charge_is_its_lines"}
        for view in after:
            assert not await old.driver.fetch(f"SELECT * FROM {view}"), view
        assert await old.driver.fetchval("SELECT count(*) FROM receipts_other") == 0
        kept = await old.driver.fetchval("SELECT claimed = compared FROM receipt_horizon")
        assert kept, "what was before the revision owes no receipts"


async def test_the_months_of_every_partitioned_table_are_made(database_at: DatabaseAt) -> None:
    async with database_at("0009") as new:
        parents = await new.driver.fetchval("SELECT count(*) FROM pg_partitioned_table")
        made = await new.driver.fetchval("SELECT ensure_partitions('2041-01-15', 2)")
        assert made == 2 * parents
        assert await new.driver.fetchval("SELECT to_regclass('receipts_204102') IS NOT NULL")
        with pytest.raises(asyncpg.CheckViolationError):
            await new.driver.execute(
                "INSERT INTO receipts VALUES (uuidv7(), 0, uuidv7(), now() - interval '1 day', '',"
                " 1, '', 200, true, 1, 1, 1, 1, now(), now(), now(), now(), '{}', '')"
            )
