"""Every revision is reached from the one before, with money in the books."""

from __future__ import annotations

from importlib import resources

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
