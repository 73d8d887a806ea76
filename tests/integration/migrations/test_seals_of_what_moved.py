"""0034: books whose seals had a row for each account go on with seals of what moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker.flows.books.check import check
from broker.flows.books.seal import seal
from broker.store import ledger
from broker.store.books import budgets
from broker.store.books.budgeted_keys import open_periods
from broker.store.books.budgets import Budgets
from broker.store.database import create_engine
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, open_account, open_key
from tests.integration.migrations.test_seals_between import SEALED
from tests.integration.migrations.upgrading import DatabaseAt

HOUR = timedelta(hours=1)
OF_BEFORE = "INSERT INTO seal_periods (sealed_before, created_at, extra) VALUES ($1, now(), $2)"


async def test_books_with_a_seal_of_each_account_go_on_with_seals_of_what_moved(
    database_at: DatabaseAt,
) -> None:
    now = datetime.now(UTC)
    async with database_at("0033") as old:
        await ledger.prepare_session(old.driver)
        consumer = await open_account(old.driver, "consumer", 1_000_000)
        provider = await open_account(old.driver, "provider")
        idle = await open_account(old.driver, "provider")
        take = await ledger.take_account(old.driver, PROCESS)
        key = await open_key(old.driver, consumer)
        engine = create_engine(old.url, connections_max=2)
        async with engine.begin() as connection:
            await budgets.set_budgets(connection, key, Budgets(day_nanos=1_000_000))

        async def trade(at: datetime) -> None:
            wanted = a_hold(consumer, 100_000, key_id=key, at=at)
            await open_periods(old.driver, [wanted])
            await ledger.hold_batch(old.driver, [wanted], PROCESS)
            await ledger.settle_batch(old.driver, [a_capture(wanted, (provider, 10))], take)

        await trade(now - 3 * HOUR)
        await old.driver.execute("SET session_replication_role = replica")
        for change in (
            "UPDATE settlements SET settled_at = $1",
            "UPDATE settlement_lines SET settled_at = $1",
            "UPDATE transfers SET created_at = $1",
        ):
            await old.driver.execute(change, now - 3 * HOUR)
        await old.driver.execute("SET session_replication_role = origin")
        await old.driver.execute(OF_BEFORE, now - 2 * HOUR, False)
        await old.driver.execute(SEALED)
        await trade(now)
        assert await check(engine, replay=True) == []
        await engine.dispose()

        await old.upgrade()
        engine = create_engine(old.url, connections_max=2)
        assert await check(engine, replay=True) == []
        with pytest.raises(asyncpg.UndefinedColumnError):
            await old.driver.execute(OF_BEFORE, now - HOUR, True)
        await trade(now - HOUR)
        assert await seal(engine, now - HOUR, now, for_checks=True)
        await trade(now)
        assert await check(engine, replay=True) == []
        await engine.dispose()
        sealed = "SELECT count(*) FROM seals WHERE ledger_account_id = $1"
        assert await old.driver.fetchval(sealed, idle) == 1, "as before, and no more"
