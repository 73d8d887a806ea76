"""An endpoint that serves another model than it says is found out from the command line."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from broker.cli.main import app
from broker.store.access.accounts import Account, Role
from provider_sdk.testing.scripted import Script, ScriptedProvider
from tests.integration.catalog.offers import open_account
from tests.integration.routing.hall import TOKENS, bring, list_law, rows


async def test_a_substitute_differs_and_the_same_model_does_not(
    engine: AsyncEngine,
    acme: Account,
    provider: ScriptedProvider,
    database_url: str,
    tmp_path: Path,
) -> None:
    env = {
        "DATABASE_URL": database_url,
        "BROKER_SECRET_KEY": "ab" * 32,
        "BROKER_STATE": str(tmp_path),
        "BROKER_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    await bring(engine, rows(4, 4))
    await list_law(engine, acme, provider.url)
    same, other = (
        Script(models=("tiny-law",), output_tokens=TOKENS),
        Script(models=("tiny-law",), output_tokens=1),
    )
    async with ScriptedProvider(same) as second, ScriptedProvider(other) as third:
        for name, server in (("globex", second), ("umbrella", third)):
            owner = await open_account(engine, Role.PROVIDER, name)
            await list_law(engine, owner, server.url)
        told, asked = {}, ("--domain", "law", "--prompts", "2")
        for reference in ("globex/law", "umbrella/law", "nobody/law"):
            words = ("suites", "compare", "acme/law", reference, *asked)
            ended = await asyncio.to_thread(CliRunner().invoke, app, words, env=os.environ | env)
            told[reference] = ended.exit_code, ended.output
        words = ("suites", "compare", "acme/law", "globex/law", *asked, "--allow-networks", "")
        shut = await asyncio.to_thread(CliRunner().invoke, app, words, env=os.environ | env)
    assert told["globex/law"][0] == 0, told
    assert "No difference found. p = 1.000" in told["globex/law"][1]
    assert told["umbrella/law"][0] == 1
    assert "Not the same model" in told["umbrella/law"][1]
    assert told["nobody/law"][0] == shut.exit_code == 2
    assert "no endpoint 'nobody/law'" in told["nobody/law"][1]
    assert "answered by both" in shut.output
    assert "acme/law: address_refused" in shut.output
