"""A worker whose connection to Valkey breaks goes on, whatever it had in hand."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from broker.settings import Settings
from broker.worker import create_app
from tests.integration.ledger.jobs.test_worker import environment, worker
from tests.integration.ledger.jobs.test_worker_stops import only_child
from tests.integration.live.passage import Passage
from tests.waiting import until

__all__ = ["environment"]


async def test_a_connection_that_breaks_before_a_job_is_acknowledged_is_made_anew(
    environment: dict[str, str], tmp_path: Path, valkey_url: str
) -> None:
    app = create_app(Settings.from_env(environment))
    log = tmp_path / "worker.log"

    async def logged(words: str, times: int = 1) -> None:
        async def found() -> bool:
            return log.read_text().count(words) >= times

        await until(found, within_s=60)

    async with Passage(valkey_url) as passage:
        broken = environment | {"VALKEY_URL": passage.url}
        async with worker(broken, tmp_path, "--loglevel", "debug") as process:
            await asyncio.to_thread(app.send_task, "broker.sweep")
            await logged("succeeded")
            child = only_child(process.pid)
            os.kill(child, signal.SIGSTOP)
            await asyncio.to_thread(app.send_task, "broker.sweep")
            await asyncio.to_thread(app.send_task, "broker.sweep")
            await logged("Task broker.sweep[", times=3)
            await passage.close()
            await logged("jobs_wait_for_valkey")
            os.kill(child, signal.SIGCONT)
            await passage.open()
            # What was in hand may wait until Valkey gives it out again; what comes now is done.
            sent = await asyncio.to_thread(app.send_task, "broker.sweep")
            await logged(f"Task broker.sweep[{sent.id}] succeeded")
    await asyncio.to_thread(app.close)
    assert "Unrecoverable" not in log.read_text()
