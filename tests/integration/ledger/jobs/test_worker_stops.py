"""A worker that is told to stop ends soon, whatever it was about to do."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from broker.settings import Settings
from broker.worker import create_app
from tests.integration.ledger.jobs.test_worker import environment, worker
from tests.waiting import until

__all__ = ["environment"]


def only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


async def test_work_that_nobody_waits_for_does_not_keep_a_worker_from_ending(
    environment: dict[str, str], tmp_path: Path
) -> None:
    app = create_app(Settings.from_env(environment))
    log = tmp_path / "worker.log"

    async def logged(words: str, times: int = 1) -> None:
        async def found() -> bool:
            return log.read_text().count(words) >= times

        await until(found, within_s=60)

    async with worker(environment, tmp_path, "--loglevel", "debug") as process:
        await asyncio.to_thread(app.send_task, "broker.sweep")
        await logged("succeeded")
        child = only_child(process.pid)
        os.kill(
            child, signal.SIGSTOP
        )  # as a busy machine would: it is handed work and says nothing
        await asyncio.to_thread(app.send_task, "broker.sweep")
        await logged("TaskPool: Apply", times=2)
        # Who answers this has been round since, and has handed the work over.
        await asyncio.to_thread(app.control.ping, timeout=30, limit=1)
        process.send_signal(signal.SIGTERM)
        await logged("Stopping Pool")  # given up by now
        os.kill(child, signal.SIGCONT)
    await asyncio.to_thread(app.close)
    assert log.read_text().count("succeeded") == 2, "the process was handed the work and did it"
