"""A real Celery worker: what it has under way to targets keeps none of its other jobs waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path

from broker.settings import Settings
from broker.store import ledger
from broker.store.access.accounts import Account
from broker.worker import create_app
from tests.integration.ledger.entries import PROCESS, a_hold, fund, ledger_connection
from tests.integration.ledger.jobs.test_worker import worker
from tests.integration.webhooks.office import Office
from tests.integration.webhooks.target import Target
from tests.integration.webhooks.target import target as a_target
from tests.waiting import until


async def test_a_target_that_hangs_delays_neither_others_nor_the_sweep(
    office: Office,
    shop: Account,
    target: Target,
    database_url: str,
    valkey_url: str,
    tmp_path: Path,
) -> None:
    environment = {
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_url,
        "BROKER_SECRET_KEY": "ab" * 32,
        "BROKER_ALLOW_NETWORKS": "127.0.0.0/8",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    assert shop.ledger_account is not None
    connection = await ledger_connection(database_url)
    await fund(connection, shop.ledger_account, 1_000)
    await ledger.hold_batch(connection, [a_hold(shop.ledger_account, 1_000, lasts_s=-1)], PROCESS)
    app = create_app(Settings.from_env(environment))
    async with a_target() as hanging:
        hanging.answers = lambda _: None
        for url in (hanging.url, target.url):
            await office.subscribe(shop, url)
        event_id = await office.tell(shop)
        async with worker(environment, tmp_path, "--pool", "solo"):
            await asyncio.to_thread(app.send_task, "broker.deliver_webhooks")
            await asyncio.to_thread(app.send_task, "broker.sweep")
            await until(lambda: target.ids == [event_id], within_s=60)

            async def swept() -> bool:
                return bool(await connection.fetchval("SELECT count(*) = 0 FROM open_holds"))

            await until(swept, within_s=60)
            assert hanging.under_way == 1, "it hangs still"
        assert "Traceback" not in (tmp_path / "worker.log").read_text()
    await asyncio.to_thread(app.close)
    await connection.close()
