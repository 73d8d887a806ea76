"""Revision 0008 gives providers their purses, and what was earned before matures after."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from broker.core.money.maturity import MaturityTerms
from broker.flows.books.check import check
from broker.flows.books.seal import AGE_MIN, seal
from broker.flows.money.mature import mature_all
from broker.store import ledger
from broker.store.database import create_engine
from tests.integration.ledger.entries import PROCESS, a_capture, a_hold, ledger_connection
from tests.integration.migrations.upgrading import DatabaseAt, insert_account, insert_topup
from tests.integration.payouts.till import grow_older

PURSES = """
SELECT a.kind, b.posted_nanos, b.may_overdraw
  FROM ledger_accounts a JOIN balances b ON b.ledger_account_id = a.id
 WHERE a.owner_id = $1 ORDER BY a.kind
"""


async def test_providers_get_their_purses_and_nobody_else_does(database_at: DatabaseAt) -> None:
    async with database_at("0007") as old:
        shop, funds = await insert_account(old.driver, "consumer", "shop")
        gpus, earnings = await insert_account(old.driver, "provider", "gpus")
        await insert_topup(old.driver, funds, 5_000)
        await insert_topup(old.driver, earnings, 3_000)
        await old.upgrade("0008")
        assert [tuple(row) for row in await old.driver.fetch(PURSES, gpus)] == [
            ("available", 0, False),
            ("earnings", 3_000, False),
            ("receivable", 0, True),
            ("transit", 0, False),
        ]
        assert [tuple(row) for row in await old.driver.fetch(PURSES, shop)] == [
            ("funds", 5_000, False)
        ]
        shown = "SELECT kind, posted_nanos FROM console_purses WHERE account_id = $1"
        assert [tuple(row) for row in await old.driver.fetch(shown, gpus)] == [("earnings", 3_000)]


async def test_what_was_earned_and_adjusted_before_matures_after(database_at: DatabaseAt) -> None:
    async with database_at("0007") as old:
        _, funds = await insert_account(old.driver, "consumer", "shop")
        gpus, earnings = await insert_account(old.driver, "provider", "gpus")
        await insert_topup(old.driver, funds, 10**9)
        await insert_topup(old.driver, earnings, 3_000)
        await old.upgrade("head")
        driver = await ledger_connection(old.url)
        engine = create_engine(old.url, connections_max=2)
        try:
            take = await ledger.take_account(driver, PROCESS)
            hold = a_hold(funds, 10_000_000)
            await ledger.hold_batch(driver, [hold], PROCESS)
            capture = a_capture(hold, (earnings, 1_000), recorded=False)
            await ledger.settle_batch(driver, [capture], take)
            await grow_older(driver, timedelta(days=20))
            now = datetime.now(UTC)
            await seal(engine, now - timedelta(days=18), now)
            await seal(engine, now - AGE_MIN, now)
            assert await mature_all(engine, MaturityTerms(), now) == 1
            purses = {row["kind"]: row["posted_nanos"] for row in await driver.fetch(PURSES, gpus)}
            assert (purses["earnings"], purses["available"]) == (0, 903_000)
            assert await check(engine, replay=True) == []
        finally:
            await engine.dispose()
            await driver.close()
