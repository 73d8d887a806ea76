"""The processes behind `broker up`, each by itself: for many machines, and for process managers."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Literal

import typer

from broker.cli import lean
from broker.cli.options import DEFAULT_STATE, Host, Port, State, Workers
from broker.cli.state import StateFolder


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Workers = 1,
) -> None:
    """Run a broker on DATABASE_URL, VALKEY_URL and BROKER_SECRET_KEY.

    With several workers, each is a process that is started again when it dies.
    """
    from broker.settings import Settings

    settings = Settings.from_env()
    if workers > 1:
        from broker.cli.fleet import Fleet
        from broker.logs import configure_logging

        configure_logging()
        raise typer.Exit(
            asyncio.run(Fleet(host, port, workers, settings.limits.stop_notice_s).run())
        )

    from broker.cli.workers import become

    become(lean.command(host, port), os.environ)


def worker(
    state: State = DEFAULT_STATE,
    *,
    beat: Annotated[bool, typer.Option(help="Also keep the schedule; once per market.")] = True,
    queue: Annotated[
        Literal["both", "quick", "slow"],
        typer.Option(help="Only what is due in seconds, or only what may take minutes."),
    ] = "both",
    simulations: Annotated[
        bool, typer.Option("--simulations", help="Run simulations on all cores, and nothing else.")
    ] = False,
) -> None:
    """Run Celery workers: sweeps, checks, seals and what else can wait.

    One process does what is due in seconds, another what may take minutes, so that neither waits
    for the other; if one ends, so does the other.
    """
    from broker.cli import workers
    from broker.settings import Settings
    from broker.store.revision import require_newest_at

    folder = StateFolder(state)
    env = os.environ | {
        "DATABASE_URL": folder.database_url(),
        "VALKEY_URL": folder.valkey_url(),
        "BROKER_SECRET_KEY": folder.secret_key(),
    }
    if simulations:
        workers.become(workers.simulator_command(), env)
    quick = workers.quick_command(folder, beat=beat)
    slow = workers.slow_command(quiet=queue == "both")
    if queue != "both":
        workers.become(quick if queue == "quick" else slow, env)
    # What keeps one from beginning keeps both, and each would say it.
    asyncio.run(require_newest_at(Settings.from_env(env).database_url))
    raise typer.Exit(asyncio.run(workers.run_together([quick, slow], env)))


def migrate(state: State = DEFAULT_STATE) -> None:
    """Bring the database to the newest schema."""
    from broker.store.away import unavailable_when_away
    from broker.store.migrate import upgrade

    with unavailable_when_away():
        asyncio.run(upgrade(StateFolder(state).database_url()))
    typer.echo("The schema is up to date.")
