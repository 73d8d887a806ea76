"""Every revision is reached from the one before, with money in the books."""

from __future__ import annotations

import asyncio
from importlib import resources

import asyncpg

from tests.integration.migrations.upgrading import DatabaseAt, insert_account, insert_topup

REVISIONS = sorted(
    file.name.partition("_")[0]
    for file in (resources.files("migrations") / "versions").iterdir()
    if file.name[0].isdigit()
)


async def test_money_passes_through_every_revision_unchanged(database_at: DatabaseAt) -> None:
    async with database_at("0001") as old:
        _, funds = await insert_account(old.driver, "consumer", "shop")
        _, earnings = await insert_account(old.driver, "provider", "gpus")
        await insert_topup(old.driver, funds, 5_000)
        await insert_topup(old.driver, earnings, 3_000)
        standing = (
            "SELECT ledger_account_id, posted_nanos, held_nanos FROM balances"
            " WHERE ledger_account_id = ANY($1) ORDER BY 1"
        )
        before = await old.driver.fetch(standing, [funds, earnings])
        for revision in REVISIONS[1:]:
            await old.upgrade(revision)
            assert await old.driver.fetch(standing, [funds, earnings]) == before, revision
            assert await old.driver.fetchval("SELECT version_num FROM alembic_version") == revision


async def test_an_upgrade_that_waits_for_a_long_reader_keeps_nobody_else_for_long(
    database_at: DatabaseAt,
) -> None:
    async with database_at("0022") as old:
        reader, login = [await asyncpg.connect(old.url) for _ in range(2)]
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = $1"
        here = await login.fetchval(
            "SELECT oid FROM pg_database WHERE datname = current_database()"
        )
        async with reader.transaction():
            await reader.fetch("SELECT * FROM accounts")
            upgrading = asyncio.create_task(old.upgrade())
            async with asyncio.timeout(30):
                for _ in range(1_000):
                    if await old.driver.fetchval(waits, here) or upgrading.done():
                        break
                    await asyncio.sleep(0.02)
                # Behind the upgrade, which gives way though the reader does not.
                assert await login.fetchval("SELECT count(*) FROM accounts") == 0
            assert not upgrading.done()
        await upgrading
        assert await login.fetchval("SELECT version_num FROM alembic_version") == REVISIONS[-1]
        await asyncio.gather(reader.close(), login.close())
