"""Brings up a whole broker on one machine: database, Valkey, schema, broker, worker."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from rich.console import Console

from broker.cli.local import OPERATOR, now
from broker.cli.state import Running, StateFolder
from broker.cli.workers import quick_command, simulator_command, slow_command
from broker.embedded.child import Command
from broker.embedded.lock import FolderLock
from broker.embedded.postgres import EmbeddedPostgres
from broker.embedded.readiness import answering
from broker.embedded.supervise import Service, Supervisor
from broker.embedded.valkey import EmbeddedValkey
from broker.errors import Conflict, SettingInvalid
from broker.flows.access.login import make_link
from broker.flows.access.open_account import open_account
from broker.settings import Settings
from broker.store.access import accounts as account_store
from broker.store.access.accounts import Role
from broker.store.away import unavailable_when_away
from broker.store.database import create_engine
from broker.store.migrate import upgrade

_READY_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Launch:
    """What to bring up, and where."""

    folder: StateFolder
    host: str
    port: int
    allow_networks: str = ""
    workers: int = 1

    @property
    def url(self) -> str:
        """Where people and agents of this machine reach the broker."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Market:
    """A broker that is up, and what further services of it need."""

    running: Running
    env: Mapping[str, str]
    console_link: str


@contextlib.asynccontextmanager
async def occupy(wanted: Launch, console: Console) -> AsyncIterator[Supervisor]:
    """Take the folder and the port; everything stops when the block ends or a signal comes, which
    is said at once, for it takes seconds.

    Raises AlreadyRunning, SettingInvalid for a port that is taken.
    """
    with FolderLock(wanted.folder.path):
        require_free(wanted.host, wanted.port)
        async with Supervisor() as up:
            try:
                yield up
            finally:
                if up.stopped_by is not None:
                    console.print("\nStopping ...")
                wanted.folder.retract()


async def open_market(wanted: Launch, up: Supervisor, console: Console) -> Market:
    """Start the databases and the broker. Raises EmbeddedServerFailed, Unavailable for a database
    of one's own that does not answer, and SettingInvalid before anything is started."""
    Settings.from_env(_environment(wanted, "not yet", "not yet"))
    folder = wanted.folder
    database_url = await _database(wanted, up, console)
    valkey_url = await _valkey(folder, up, console)
    with unavailable_when_away():
        await upgrade(database_url)
    env = _environment(wanted, database_url, valkey_url)
    link = await _console_link(database_url, wanted.url)
    await up.start(_broker(wanted, env))
    running = Running(
        os.getpid(), wanted.url, database_url, valkey_url, allow_networks=wanted.allow_networks
    )
    folder.announce(running)
    return Market(running, env, link)


def require_free(host: str, port: int) -> None:
    """Raise SettingInvalid when something else listens on the port, naming a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            free = _free_port(host, family, port)
            advice = f'--port {free} is free (with make: ARGS="--port {free}").' if free else ""
            raise SettingInvalid(
                f"Port {port} on {host} cannot be used: {error.strerror}. {advice}".strip()
            ) from None


def _free_port(host: str, family: socket.AddressFamily, taken: int) -> int | None:
    """Return a port near the one that is taken, else any; None when the host is the trouble."""
    for port in (*range(taken + 1, min(taken + 20, 65536)), 0):
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            found: int = probe.getsockname()[1]
            return found
    return None


async def _database(wanted: Launch, up: Supervisor, console: Console) -> str:
    given = os.environ.get("DATABASE_URL")
    if given:
        console.print("PostgreSQL: yours, as DATABASE_URL says")
        return given
    folder = wanted.folder
    server = EmbeddedPostgres(folder.path / "postgres")
    server.connections_max = max(server.connections_max, connections_of(wanted.workers))
    await up.host(server)
    # Not always below the state folder: who copies that must know.
    console.print(f"PostgreSQL: embedded, kept in {server.cluster.parent}")
    return server.url


def connections_of(workers: int) -> int:
    """Return how many connections to the database a market of so many brokers may open."""
    return 100 + 25 * workers  # a broker's two pools and what listens; the rest is for the jobs


async def _valkey(folder: StateFolder, up: Supervisor, console: Console) -> str:
    given = os.environ.get("VALKEY_URL")
    if given:
        console.print("Valkey: yours, as VALKEY_URL says")
        return given
    server = EmbeddedValkey(folder.path / "valkey")
    await up.host(server)
    console.print(f"Valkey: embedded, kept in {folder.path / 'valkey'}")
    return server.url


def _environment(wanted: Launch, database_url: str, valkey_url: str) -> dict[str, str]:
    return os.environ | {
        "DATABASE_URL": database_url,
        "VALKEY_URL": valkey_url,
        "BROKER_SECRET_KEY": wanted.folder.make_secret_key(),
        "BROKER_PUBLIC_URL": os.environ.get("BROKER_PUBLIC_URL") or wanted.url,
        "BROKER_ALLOW_NETWORKS": wanted.allow_networks,
    }


async def _console_link(database_url: str, url: str) -> str:
    """Return a login link that works once, for the operator that every market has."""
    engine = create_engine(database_url, connections_max=1)
    try:
        with contextlib.suppress(Conflict):
            await open_account(engine, "operator", Role.OPERATOR, author=OPERATOR.name, now=now())
        async with engine.connect() as connection:
            operator = await account_store.by_name(connection, "operator")
        return f"{url}/console/login?token={await make_link(engine, operator.id, now())}"
    finally:
        await engine.dispose()


def _broker(wanted: Launch, env: Mapping[str, str]) -> Service:
    listening = ["--host", wanted.host, "--port", str(wanted.port)]
    listening += ["--workers", str(wanted.workers)]
    command = Command(
        "broker",
        [sys.executable, "-P", "-m", "broker.cli.main", "serve", *listening],
        wanted.folder.path / "logs" / "broker.log",
        env=env,
    )
    return Service(command, answering(f"{wanted.url}/health/ready"), _READY_LIMIT_S, 40.0)


def workers(folder: StateFolder, env: Mapping[str, str]) -> list[Service]:
    """Return the workers that every market needs: for quick jobs, with the schedule in it, for slow
    ones, and for the simulations that operators order, one at a time."""
    logs = folder.path / "logs"
    quick, slow = quick_command(folder, beat=True), slow_command()
    return [
        Service(Command("worker", quick, logs / "worker.log", env=env)),
        Service(Command("worker for slow jobs", slow, logs / "worker-slow.log", env=env)),
        Service(Command("simulator", simulator_command(1), logs / "simulator.log", env=env)),
    ]
