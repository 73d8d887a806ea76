"""From the command line to a real Celery worker and back: a suite is imported, run and shown."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from broker.cli.main import app
from broker.settings import Settings
from broker.store.access.accounts import Role
from broker.worker import create_app
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.catalog import offers
from tests.integration.catalog.offers import endpoint_offer, offer, open_account
from tests.integration.ledger.jobs.test_worker import worker
from tests.integration.routing.hall import TOKENS, found, rows
from tests.waiting import until


async def test_a_suite_is_imported_run_by_a_worker_and_its_results_are_shown(
    engine: AsyncEngine, database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_url,
        "BROKER_SECRET_KEY": "ab" * 32,
        "BROKER_STATE": str(tmp_path),
        "BROKER_ALLOW_NETWORKS": "127.0.0.0/8",
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }

    async def broker(*words: str) -> str:
        ended = await asyncio.to_thread(CliRunner().invoke, app, words, env=os.environ | env)
        assert ended.exit_code == 0, (ended.output, ended.exception)
        return ended.output

    file = tmp_path / "law.jsonl"
    file.write_bytes(rows(5, 1) + b"\nno json")
    told = await broker("suites", "import", str(file), "--domain", "law")
    assert "law.jsonl, line 6" in told
    assert "law has 5 prompts; 1 rows are broken." in told
    assert "law is not taught, and no endpoint claims it" in told
    assert "law" in await broker("suites", "list")
    assert "exact" in await broker("suites", "show", "law")
    celery = create_app(Settings.from_env(env))
    async with ScriptedProvider(Script(models=("tiny-law",), output_tokens=TOKENS)) as provider:
        acme = await open_account(engine, Role.PROVIDER, "acme")
        terms = endpoint_offer(domains={"law": 0.99})
        listed = await offers.register(engine, acme, offer(url=provider.url, endpoints=[terms]))
        async with engine.begin() as connection:
            await offers.enlist(connection, listed)
        assert "Nobody" not in await broker("suites", "import", str(file), "--domain", "law")
        async with worker(env, tmp_path, "--pool", "solo", "--queues", "broker,broker.slow"):
            await asyncio.to_thread(celery.send_task, "broker.examine", queue="broker.slow")

            async def examined() -> bool:
                return [each.status for each in await found(engine)] == ["done"]

            await until(examined, within_s=60)
        results = await broker("suites", "results", "acme/law")
        assert "refuted" in results
        [told_of] = json.loads(await broker("suites", "results", "--json"))["examinations"]
        assert (told_of["endpoint"], told_of["claim"]) == ("acme/law", "refuted")
        assert json.loads(await broker("suites", "gaps", "--json")) == {"gaps": []}
        assert "Traceback" not in (tmp_path / "worker.log").read_text()
    await asyncio.to_thread(celery.close)
    await broker("suites", "remove", "law")
