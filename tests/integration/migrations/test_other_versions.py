"""A process on a database of another version: it says so in a sentence, and does nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from broker.store.revision import newest_revision
from tests.integration.commands import command
from tests.integration.migrations.upgrading import DatabaseAt, OldDatabase

_SERVE = ("broker.cli.lean", "127.0.0.1", "0")
_WORK = ("broker.cli.lean_worker", "--queues", "broker", "--loglevel", "warning")
_LATER = "UPDATE alembic_version SET version_num = '9999'"
_ACCOUNTS = "SELECT count(*) FROM ledger_accounts"
"""Each broker that begins opens one for its take."""


def _environment(url: str) -> dict[str, str]:
    nowhere = "redis://127.0.0.1:1/0"
    return {"DATABASE_URL": url, "VALKEY_URL": nowhere, "BROKER_SECRET_KEY": "ab" * 32}


async def _begun(old: OldDatabase, *words: str) -> tuple[int | None, str]:
    """How a process ends that begins on the database, and what it says to its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", *words),
        env=os.environ | _environment(old.url),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode()


async def test_whoever_begins_on_the_database_of_a_newer_version_refuses(
    database_at: DatabaseAt, tmp_path: Path
) -> None:
    async with database_at("head") as old:
        await old.driver.execute(_LATER)
        accounts = await old.driver.fetchval(_ACCOUNTS)
        refusal = (
            "broker: A newer version has migrated the database, to revision 9999 where this one"
            f" knows none after {newest_revision()}: run that version, or restore a backup from"
            " before.\n"
        )
        ends = await asyncio.gather(_begun(old, *_SERVE), _begun(old, *_WORK))
        assert ends == [(1, refusal), (1, refusal)]
        for words in (["migrate"], ["accounts", "list"], ["worker", "--state", str(tmp_path)]):
            ended = await command(_environment(old.url), *words)
            assert (ended.status, ended.complained, ended.said) == (1, refusal, "")
        assert await old.driver.fetchval("SELECT version_num FROM alembic_version") == "9999"
        assert await old.driver.fetchval(_ACCOUNTS) == accounts


@pytest.mark.parametrize("revision", ["0029", ""])
async def test_whoever_begins_before_the_migration_is_told_to_make_it(
    database_at: DatabaseAt, revision: str
) -> None:
    async with database_at(revision or "0001") as old:
        if not revision:
            await old.driver.execute("DROP TABLE alembic_version")
        code, said = await _begun(old, *_SERVE)
        assert code == 1
        assert said.startswith(
            f"broker: The database is at revision {revision}, and this version needs "
            if revision
            else "broker: The database has no schema yet"
        )
        assert said.endswith(": run 'broker migrate' first.\n")
        assert said.count("\n") == 1
