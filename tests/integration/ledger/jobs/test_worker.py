"""A real Celery worker with its beat, on a real Valkey and PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
import redis.asyncio

from broker.flows.process.lease import Lease
from broker.settings import Settings
from broker.store import ledger
from broker.worker import JOBS, create_app
from tests.integration.ledger.conftest import FUNDS_NANOS
from tests.integration.ledger.entries import PROCESS, Standing, a_hold, standing
from tests.integration.ledger.waiting import until_blocked
from tests.waiting import until

_WORKER = (sys.executable, "-P", "-m", "broker.cli.lean_worker")
_CELERY = (sys.executable, "-m", "celery", "--app", "broker.worker", "worker")
_OPTIONS = ("--loglevel", "warning", "--without-gossip", "--without-mingle", "--concurrency", "1")
_BOTH = (sys.executable, "-m", "broker.cli.main", "worker", "--no-beat", "--state", ".")
_NOBODY = 99
"""A process without a lease."""


@asynccontextmanager
async def worker(
    env: dict[str, str], folder: Path, *options: str, command: Sequence[str] = (*_WORKER, *_OPTIONS)
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker in a folder of its own; it must stop by itself when asked."""
    log = (folder / "worker.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        *command, *options, env=os.environ | env, cwd=folder, stdout=log, stderr=log
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), timeout=20)
        except TimeoutError:
            process.kill()
            await process.wait()
        log.close()
    assert process.returncode == 0, (folder / "worker.log").read_text()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def environment(database_url: str, valkey_url: str) -> dict[str, str]:
    root = str(Path(__file__).parents[4])
    return {
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_url,
        "BROKER_SECRET_KEY": "00" * 32,
        "PYTHONPATH": root,
    }


@pytest.mark.parametrize("pool_kind", ["prefork", "solo"])
async def test_the_beat_has_expired_holds_given_back(
    environment: dict[str, str],
    tmp_path: Path,
    connection: asyncpg.Connection,
    consumer: UUID,
    pool_kind: str,
) -> None:
    beat = ("--beat", "--schedule", str(tmp_path / "state-of-beat"))
    expired, live = a_hold(consumer, 1_000, lasts_s=-1), a_hold(consumer, 500)
    await ledger.hold_batch(connection, [expired, live], PROCESS)
    command = (*_CELERY, *_OPTIONS)
    async with worker(environment, tmp_path, "--pool", pool_kind, *beat, command=command):

        async def swept() -> bool:
            return await standing(connection, consumer) == Standing(FUNDS_NANOS, 500)

        await until(swept, within_s=60)
    kinds = await connection.fetch("SELECT kind FROM settlements")
    assert [row["kind"] for row in kinds] == ["expired"]
    assert "celerybeat-schedule" not in names_in(tmp_path)


async def test_every_task_runs_and_a_slow_one_keeps_no_quick_one_waiting(
    environment: dict[str, str],
    tmp_path: Path,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    consumer: UUID,
) -> None:
    lease = Lease(pool)
    await lease.acquire()
    await ledger.hold_batch(connection, [a_hold(consumer, 1_000)], lease.process_id)
    await ledger.hold_batch(connection, [a_hold(consumer, 500, lasts_s=-1)], _NOBODY)
    await connection.execute(
        "INSERT INTO login_links (token_sha256, account_id, created_at, expires_at)"
        " SELECT '\\x00', id, now(), now() FROM accounts LIMIT 1"
    )
    app = create_app(Settings.from_env(environment))

    async def swept() -> bool:
        return (await standing(connection, consumer)).held_nanos == 1_000

    async def done() -> bool:
        links = await connection.fetchval("SELECT count(*) FROM login_links")
        seals = await connection.fetchval("SELECT count(*) FROM seal_periods")
        return bool(links == 0 and seals == 1)

    async with worker(environment, tmp_path, command=_BOTH):
        async with other.transaction():
            await other.execute("LOCK TABLE login_links")
            await asyncio.to_thread(app.send_task, "broker.clean_up")
            await until_blocked(connection, timeout_s=60)
            for name in (job.name for job in JOBS):
                await asyncio.to_thread(app.send_task, name)
            await until(swept, within_s=60)
        await until(done, within_s=60)
    log = (tmp_path / "worker.log").read_text()
    assert "Traceback" not in log
    assert log.count("[config]") == 1, "of two processes one shows the banner"
    assert await swept()
    await asyncio.to_thread(app.close)
    await lease.release()


@pytest.mark.parametrize("pool_kind", ["prefork", "solo"])
async def test_a_worker_outlives_a_valkey_that_takes_no_writes_and_says_so_in_a_line(
    environment: dict[str, str],
    valkey_url: str,
    tmp_path: Path,
    connection: asyncpg.Connection,
    consumer: UUID,
    pool_kind: str,
) -> None:
    """As where its disk is full: it answers, and refuses."""
    app = create_app(Settings.from_env(environment))
    log = tmp_path / "worker.log"
    pool = ("--pool", pool_kind) if pool_kind == "solo" else ()
    async with redis.asyncio.from_url(valkey_url) as valkey, worker(environment, tmp_path, *pool):
        await until(_is_listened_to(valkey), within_s=60)
        await valkey.config_set("min-replicas-to-write", 1)
        try:
            await until(lambda: _says(log, "jobs_wait_for_valkey"), within_s=60)
            await asyncio.sleep(1.0)
        finally:
            await valkey.config_set("min-replicas-to-write", 0)
        await ledger.hold_batch(connection, [a_hold(consumer, 500, lasts_s=-1)], _NOBODY)
        await asyncio.to_thread(app.send_task, "broker.sweep")

        async def swept() -> bool:
            return (await standing(connection, consumer)).held_nanos == 0

        await until(swept, within_s=60)
        await until(lambda: _says(log, "jobs_go_on"), within_s=60)
    await asyncio.to_thread(app.close)
    told = log.read_text()
    assert told.count("jobs_wait_for_valkey") <= 2, "one in half a minute"
    assert "Traceback" not in told


async def _says(log: Path, words: str) -> bool:
    return words in log.read_text()


def _is_listened_to(valkey: redis.asyncio.Redis) -> Callable[[], Awaitable[bool]]:
    """Return whether a worker waits for what comes into a queue."""

    async def listens() -> bool:
        return any(each["cmd"] in ("brpop", "bzmpop") for each in await valkey.client_list())

    return listens


async def test_an_alarm_is_in_the_workers_log(
    environment: dict[str, str], tmp_path: Path, connection: asyncpg.Connection, consumer: UUID
) -> None:
    app = create_app(Settings.from_env(environment))
    tamper = "UPDATE balances SET posted_nanos = posted_nanos + $2 WHERE ledger_account_id = $1"
    await connection.execute(tamper, consumer, 7)
    log = tmp_path / "worker.log"
    async with worker(environment, tmp_path, "--pool", "solo"):
        await asyncio.to_thread(app.send_task, "broker.check_invariants")

        async def told() -> bool:
            return "invariant_balance_is_its_entries" in log.read_text()

        await until(told, within_s=60)
    await connection.execute(tamper, consumer, -7)
    await asyncio.to_thread(app.close)
    assert "ledger_alarm" in log.read_text()
