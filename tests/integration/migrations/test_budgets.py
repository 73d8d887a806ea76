"""Holds and keys of before: open holds are settled as ever, and keys are counted when they need."""

from __future__ import annotations

from msgspec.structs import replace

from broker.store import ledger
from broker.store.books import budgets
from broker.store.books.budgeted_keys import BudgetedKeys
from broker.store.books.budgets import Budgets
from broker.store.database import create_engine
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold
from tests.integration.migrations.upgrading import DatabaseAt, insert_account, insert_topup


async def test_a_hold_of_before_is_settled_and_its_key_gets_a_budget(
    database_at: DatabaseAt,
) -> None:
    async with database_at("0003") as old:
        owner, funds = await insert_account(old.driver, "consumer", "shop")
        _, earnings = await insert_account(old.driver, "provider", "gpus")
        await insert_topup(old.driver, funds, 100_000)
        await old.driver.execute(
            "INSERT INTO keys (id, account_id, secret_sha256, created_at)"
            " VALUES ('older', $1, sha256(''), now())",
            owner,
        )
        await old.driver.execute("INSERT INTO broker_processes (started_at) VALUES (now())")
        hold = a_hold(funds, 20_000, key_id="older")
        times = (hold.created_at, hold.expires_at)
        await old.driver.execute(
            "INSERT INTO holds VALUES ($1, $2, 'older', 20000, $3, $4)", hold.call_id, funds, *times
        )
        await old.driver.execute(
            "INSERT INTO open_holds VALUES ($1, $2, 1, 20000, $3, $4)", hold.call_id, funds, *times
        )
        await old.driver.execute(
            "UPDATE balances SET held_nanos = 20000 WHERE ledger_account_id = $1", funds
        )
        await old.upgrade("head")

        take = await ledger.take_account(old.driver, PROCESS)
        capture = a_capture(hold, (earnings, 7))
        assert capture.record is not None
        capture = replace(capture, record=replace(capture.record, account_id=owner))
        [settled] = await ledger.settle_batch(old.driver, [capture], take, BudgetedKeys())
        assert settled.settled
        engine = create_engine(old.url, connections_max=1)
        async with engine.begin() as connection:
            await budgets.set_budgets(connection, "older", Budgets(total_nanos=10_000))
        await engine.dispose()
        asked = [a_hold(funds, amount, key_id="older") for amount in (3_001, 3_000)]
        results = [await ledger.hold_batch(old.driver, [each], PROCESS) for each in asked]
        assert [result.accepted for (result,) in results] == [False, True]
        assert not await old.driver.fetch("SELECT * FROM missing_indexes")


async def test_a_budget_of_before_counts_on_and_its_open_holds_are_settled(
    database_at: DatabaseAt,
) -> None:
    async with database_at("0012") as old:
        owner, funds = await insert_account(old.driver, "consumer", "shop")
        _, earnings = await insert_account(old.driver, "provider", "gpus")
        await insert_topup(old.driver, funds, 100_000)
        await old.driver.execute(
            "INSERT INTO keys (id, account_id, secret_sha256, created_at)"
            " VALUES ('older', $1, sha256(''), now())",
            owner,
        )
        await old.driver.execute("INSERT INTO broker_processes (started_at) VALUES (now())")
        await old.driver.execute("UPDATE budget_generation SET generation = 1")
        await old.driver.execute(
            "INSERT INTO budgets VALUES ('older', 30000, NULL, NULL, 1, now())"
        )
        hold = a_hold(funds, 20_000, key_id="older")
        times = (hold.created_at, hold.expires_at)
        await old.driver.execute(
            "INSERT INTO holds VALUES ($1, $2, 'older', 20000, $3, $4, true)",
            *(hold.call_id, funds, *times),
        )
        await old.driver.execute(
            "INSERT INTO open_holds VALUES ($1, $2, 1, 20000, $3, $4, 'older')",
            *(hold.call_id, funds, *times),
        )
        await old.driver.execute(
            "INSERT INTO budget_periods (key_id, begins_at, kind, limit_nanos, held_nanos)"
            " SELECT 'older', begins_at, kind, CASE kind WHEN 'day' THEN 30000 END, 20000"
            " FROM budget_periods_of($1)",
            hold.created_at,
        )
        await old.driver.execute(
            "UPDATE balances SET held_nanos = 20000 WHERE ledger_account_id = $1", funds
        )
        files = "SELECT pg_relation_filenode('balances'), pg_relation_filenode('budget_periods')"
        before = await old.driver.fetchrow(files)
        await old.upgrade()
        assert await old.driver.fetchrow(files) == before, "nothing is written anew"

        known = BudgetedKeys()
        asked = [a_hold(funds, amount, key_id="older") for amount in (10_001, 10_000)]
        results = [await ledger.hold_batch(old.driver, [each], PROCESS, known) for each in asked]
        assert [result.accepted for (result,) in results] == [False, True]
        take = await ledger.take_account(old.driver, PROCESS)
        [settled] = await ledger.settle_batch(old.driver, [a_capture(hold, (earnings, 7))], take)
        assert settled.settled
        spent = "SELECT spent_nanos, held_nanos FROM budget_periods WHERE kind = 'day'"
        assert tuple(await old.driver.fetchrow(spent)) == (7_000, 10_000)
