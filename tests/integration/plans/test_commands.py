"""The commands for plans, webhooks and the audit log, on a database alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from broker.cli.main import app
from tests.integration.webhooks.target import Target
from tests.integration.webhooks.target import target as a_target


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> Mapping[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url,
        "BROKER_STATE": str(tmp_path),
        "BROKER_SECRET_KEY": "ab" * 32,
        "BROKER_ALLOW_NETWORKS": "127.0.0.0/8",
    }


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    async with a_target() as made:
        yield made


async def broker(environment: Mapping[str, str], *words: str, status: int = 0) -> str:
    """Run a command that must end with `status`, in a thread and so in a loop of its own."""
    ended = await asyncio.to_thread(CliRunner().invoke, app, words, env=environment)
    assert ended.exit_code == status, (ended.output, ended.exception)
    return ended.output


async def test_an_operator_sets_and_ends_plans(environment: Mapping[str, str]) -> None:
    tiers = ("--tier", "0:1000", "--tier", "10000:800")
    said = await broker(environment, "plans", "set", *tiers, "--reason", "next year")
    plan = said.split()[0]
    listed = await broker(environment, "plans", "list")
    terms = "any provider, any domain: 10 % from 0.00 USD, 8 % from 10000.00 USD"
    assert f"{plan}  {terms}\n" in listed
    assert "in force: next year" in listed
    await broker(environment, "plans", "end", plan)
    assert "in force" not in await broker(environment, "plans", "list")
    await broker(environment, "plans", "end", plan, status=1)


async def test_an_operator_is_told_by_a_webhook(
    environment: Mapping[str, str], target: Target
) -> None:
    await broker(environment, "accounts", "open", "boss", "--role", "operator")
    added = await broker(environment, "webhooks", "add", "boss", target.url, "--kind", "*")
    webhook, secret = added.split()
    assert secret.startswith("whsec_")
    assert "taken with 200" in await broker(environment, "webhooks", "ping", "boss", webhook)
    assert target.got[0].event["kind"] == "webhook.ping"
    listed = await broker(environment, "webhooks", "list", "boss")
    assert listed == f"{webhook}  {target.url}\n  *; enabled; 0 events wait\n"
    await broker(environment, "webhooks", "remove", "boss", webhook)
    assert target.url not in await broker(environment, "webhooks", "list", "boss")


async def test_tampering_with_the_audit_log_is_told_with_the_exit_status(
    environment: Mapping[str, str], database_url: str
) -> None:
    await broker(environment, "accounts", "open", "acme")
    listed = await broker(environment, "audit", "list", "--action", "open_account")
    assert listed.endswith("  command-line  open_account  accounts/acme\n  role=consumer\n")
    said = await broker(environment, "audit", "verify")
    assert "as it was written" in said
    head = said.split("elsewhere: ")[1].split()[0]
    await broker(environment, "audit", "verify", "--head", head)
    await broker(environment, "audit", "verify", "--head", "1:00", status=1)
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("UPDATE audit_log SET author = 'nobody'")
    await connection.close()
    assert "was altered" in await broker(environment, "audit", "verify", status=1)
