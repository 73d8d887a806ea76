"""0033: books that were sealed day by day go on with seals between."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broker.flows.books.check import check
from broker.flows.books.seal import seal
from broker.store import ledger
from broker.store.database import create_engine
from tests.integration.ledger.entries import PROCESS, backdate, open_account, trade
from tests.integration.migrations.upgrading import DatabaseAt

HOUR = timedelta(hours=1)
SEALED = """
INSERT INTO seals SELECT b.ledger_account_id, p.sealed_before, coalesce(sum(e.amount_nanos), 0)
  FROM balances b CROSS JOIN seal_periods p
  LEFT JOIN ledger_entries e ON e.ledger_account_id = b.ledger_account_id AND e.at < p.sealed_before
 GROUP BY 1, 2
"""


async def test_books_that_were_sealed_by_days_are_sealed_between_them_too(
    database_at: DatabaseAt,
) -> None:
    now = datetime.now(UTC)
    async with database_at("0032") as old:
        await ledger.prepare_session(old.driver)
        consumer = await open_account(old.driver, "consumer", 1_000_000)
        provider = await open_account(old.driver, "provider")
        take = await ledger.take_account(old.driver, PROCESS)
        await trade(old.driver, consumer, provider, take)
        await backdate(old.driver, timedelta(hours=5))
        await old.driver.execute("INSERT INTO seal_periods VALUES ($1, now())", now - 3 * HOUR)
        await old.driver.execute(SEALED)
        await trade(old.driver, consumer, provider, take)
        await old.upgrade()
        engine = create_engine(old.url, connections_max=2)
        assert await check(engine, replay=True) == []
        assert await seal(engine, now - HOUR, now, for_checks=True)
        assert await check(engine, replay=True) == []
        await engine.dispose()
        periods = await old.driver.fetch(
            "SELECT for_checks FROM seal_periods ORDER BY sealed_before"
        )
        assert [row["for_checks"] for row in periods] == [False, True]
