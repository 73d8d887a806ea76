"""The command lines of workers, and the two of `broker worker` side by side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from broker.cli.lean_worker import QUIET
from broker.cli.state import StateFolder
from broker.embedded.leash import leashed
from broker.jobs.room import QUICK, SLOW
from broker.server.listener import signals

_SIMULATIONS: Final = "simulations"
_STOP_S: Final = 60.0
"""So long a job may take to its end, once a worker is told to stop."""


def quick_command(folder: StateFolder, *, beat: bool) -> list[str]:
    """Return the command line of a worker for what takes no time, and of the schedule."""
    schedule = ["--beat", "--schedule", str(folder.place("beat-schedule"))] if beat else []
    return [*_worker(QUICK), "--concurrency", "1", *schedule]


def slow_command(*, quiet: bool = False) -> list[str]:
    """Return the command line of a worker for what may take minutes, `quiet` beside another."""
    options = [QUIET] if quiet else []
    return [*_worker(SLOW), "--pool", "solo", "--prefetch-multiplier", "1", *options]


def simulator_command(processes: int | None = None) -> list[str]:
    """Return the command line of a worker that runs simulations, on all cores if not told."""
    many = [] if processes is None else ["--concurrency", str(processes)]
    # One task at a time for each process, so that a sweep spreads over all hosts.
    return [*_worker(_SIMULATIONS), "--prefetch-multiplier", "1", *many]


async def run_together(commands: Sequence[Sequence[str]], env: Mapping[str, str]) -> int:
    """Run all until SIGTERM or SIGINT, or until one ends, which ends the others; return the exit
    status: 0 only if all were told to end and did."""
    asked = asyncio.Event()
    with signals(asked.set):
        children = [
            await asyncio.create_subprocess_exec(*leashed(each), env=env, start_new_session=True)
            for each in commands
        ]
        ends = [asyncio.create_task(each.wait()) for each in children]
        told = asyncio.create_task(asked.wait())
        await asyncio.wait([told, *ends], return_when=asyncio.FIRST_COMPLETED)
        one_fell = not told.done()
        told.cancel()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        _, running = await asyncio.wait(ends, timeout=_STOP_S)
        for child in children if running else ():
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        codes = await asyncio.gather(*ends)
    return 1 if one_fell or any(codes) else 0


def become(command: Sequence[str], env: Mapping[str, str]) -> None:
    """Run a command in this process's place, so that a process manager's signals reach it."""
    os.execve(command[0], list(command), env)  # noqa: S606 - to become a command is its job


def _worker(queue: str) -> list[str]:
    # Workers of one name are taken for one: who asks them what they do hears only the last.
    name = f"{queue}-{os.getpid()}-{secrets.token_hex(3)}@%h"
    return [
        *(sys.executable, "-P", "-m", "broker.cli.lean_worker"),
        *("--queues", queue, "--hostname", name),
        *("--loglevel", "warning", "--without-gossip", "--without-mingle"),
    ]
