"""The commands of operators, on a database alone, as on one machine of many."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from broker.store import accounts as account_store
from broker.store import keys as key_store

_WITHIN_S = 60.0


@dataclass(frozen=True)
class Ended:
    """What a command said, and its exit status."""

    status: int
    said: str
    complained: str


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> Mapping[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url,
        "BROKER_PUBLIC_URL": "https://broker.example/",
        "BROKER_STATE": str(tmp_path),
        "COLUMNS": "120",
    }


async def _broker(environment: Mapping[str, str], *words: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.cli.main", *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, complained = await asyncio.wait_for(process.communicate(), _WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
    return Ended(process.returncode or 0, said.decode(), complained.decode())


async def test_an_account_is_opened_and_given_money_and_a_key_that_expires(
    environment: Mapping[str, str], engine: AsyncEngine
) -> None:
    assert (await _broker(environment, "accounts", "open", "acme")).status == 0
    credited = await _broker(environment, "accounts", "topup", "acme", "2.50")
    assert credited.said == "acme has 2.50 USD available.\n"
    issued = await _broker(environment, "keys", "issue", "acme", "--days", "7", "--keep-answers")
    key_id = issued.said.split("_")[1]

    async with engine.connect() as connection:
        account = await account_store.by_name(connection, "acme")
        [key] = await key_store.list_keys(connection, account.id)
    assert key.id == key_id
    assert key.terms.content_kept == "replay"
    assert key.terms.expires_at is not None
    left = key.terms.expires_at - datetime.now(UTC)
    assert timedelta(days=6) < left < timedelta(days=7)
    listed = (await _broker(environment, "keys", "list", "acme")).said
    assert f"{key.terms.expires_at:%Y-%m-%d %H:%M}" in listed


async def test_a_login_link_needs_no_broker_on_this_machine(
    environment: Mapping[str, str],
) -> None:
    opened = await _broker(environment, "accounts", "open", "chief", "--role", "operator")
    assert opened.status == 0
    link = await _broker(environment, "login", "chief")
    assert link.said.startswith("https://broker.example/console/login?token=")


@pytest.mark.parametrize("amount", ["abc", "1e9", "0.0000000001", "0"])
async def test_an_amount_that_is_none_is_refused_in_one_line(
    environment: Mapping[str, str], amount: str
) -> None:
    refused = await _broker(environment, "accounts", "topup", "acme", amount)
    assert refused.status == 1
    assert refused.complained.startswith("broker: ")
    assert refused.complained.count("\n") == 1


async def test_a_database_that_is_away_is_said_in_one_line(environment: Mapping[str, str]) -> None:
    away = {**environment, "DATABASE_URL": "postgresql://broker@127.0.0.1:1/broker"}
    refused = await _broker(away, "accounts", "list")
    assert refused.status == 1
    assert refused.complained.startswith("broker: The database cannot be reached")
    assert refused.complained.count("\n") == 1
