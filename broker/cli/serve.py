"""The processes behind `broker up`, each by itself: for many machines, and for process managers."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated

import typer

from broker.cli.options import DEFAULT_STATE, Host, Port, State
from broker.cli.state import StateFolder


def serve(host: Host = "127.0.0.1", port: Port = 8000) -> None:
    """Run one broker process on DATABASE_URL, VALKEY_URL and BROKER_SECRET_KEY."""
    from broker.app import run
    from broker.settings import Settings

    run(Settings.from_env(), host, port)


def worker(
    state: State = DEFAULT_STATE,
    *,
    beat: Annotated[bool, typer.Option(help="Also keep the schedule; once per market.")] = True,
    simulations: Annotated[
        bool, typer.Option("--simulations", help="Run simulations on all cores, and nothing else.")
    ] = False,
) -> None:
    """Run a Celery worker: sweeps, checks, seals and what else can wait."""
    folder = StateFolder(state)
    env = os.environ | {
        "DATABASE_URL": folder.database_url(),
        "VALKEY_URL": folder.valkey_url(),
        "BROKER_SECRET_KEY": folder.secret_key(),
    }
    # In its place, so that a process manager's signals reach Celery itself.
    command = simulator_command() if simulations else worker_command(folder, beat=beat)
    os.execve(sys.executable, command, env)  # noqa: S606


def worker_command(folder: StateFolder, *, beat: bool) -> list[str]:
    """Return the command line of a worker."""
    schedule = ["--beat", "--schedule", str(folder.path / "beat-schedule")] if beat else []
    return [*_celery_worker(), "--concurrency", "1", *schedule]


def simulator_command(processes: int | None = None) -> list[str]:
    """Return the command line of a worker that runs simulations, on all cores if not told."""
    many = [] if processes is None else ["--concurrency", str(processes)]
    # One task at a time for each process, so that a sweep spreads over all hosts.
    return [*_celery_worker(), "--queues", "simulations", "--prefetch-multiplier", "1", *many]


def _celery_worker() -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "--app", "broker.worker", "worker"),
        *("--loglevel", "warning", "--without-gossip", "--without-mingle"),
    ]


def migrate(state: State = DEFAULT_STATE) -> None:
    """Bring the database to the newest schema."""
    from broker.store.migrate import upgrade

    asyncio.run(upgrade(StateFolder(state).database_url()))
    typer.echo("The schema is up to date.")
