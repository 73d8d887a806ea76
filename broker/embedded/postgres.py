"""Runs a PostgreSQL of our own from the wheel, on one folder, for as long as we live."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from broker.embedded.child import Child, Command, end_orphan
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.lock import FolderLock
from broker.embedded.place import Place, find_place
from broker.embedded.port import free_port, port_is_taken
from broker.embedded.secret import remembered_secret

_START_S = 60.0
"""Long, for a recovery after a kill reads the log from the last checkpoint on."""
_STOP_S = 20.0
_PORT_ATTEMPTS = 5
_ROLE = _DATABASE = "broker"
_READY_LINE = 7  # of postmaster.pid

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may have 107 bytes only, and folders are deep
    "shared_buffers": "128MB",
    "max_connections": "100",
    "log_line_prefix": "%m [%p] ",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_FLEETING = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}


class EmbeddedPostgres:
    """`async with EmbeddedPostgres(folder) as server:` then `server.url`.

    Listens on 127.0.0.1 only, for a role with a random password that lies in `folder/password`
    (mode 0600). `durable=False` is for tests: a crash of the machine may lose data then.
    """

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = True) -> None:
        self.folder = folder
        self.port = port or 0
        self.cluster: Path | None = None
        """Where the data lies, once started: `folder/cluster`, but for a root in a closed folder."""
        self._wanted_port = self.port
        self._durable = durable
        self._lock = FolderLock(folder)
        self._password = ""
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """The DSN of the database `broker`, as asyncpg takes it; known once started."""
        return self._url(_DATABASE)

    @property
    def pid(self) -> int:
        assert self._child is not None, "not started"
        return self._child.pid

    async def start(self) -> None:
        """Start, on a new cluster if there is none; the data of earlier runs is kept.

        Raises `AlreadyRunning` if another process has the folder, or `EmbeddedServerFailed`.
        """
        assert self._child is None, "started already"
        self._lock.acquire()
        try:
            place = find_place(self.folder)
            self.cluster = place.cluster
            self._password = remembered_secret(self.folder / "password")
            if not (place.cluster / "PG_VERSION").exists():
                await self._initialise(place)
            await self._clear_the_way(place)
            self._child = await self._launch(place)
            await self._ensure_database()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop at once but cleanly: open transactions are rolled back, everything is on disk."""
        child, self._child = self._child, None
        try:
            if child is not None:
                await child.stop(limit_s=_STOP_S)
        finally:
            self._lock.release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _url(self, database: str) -> str:
        return f"postgresql://{_ROLE}:{self._password}@127.0.0.1:{self.port}/{database}"

    def _command(self, place: Place, name: str, argv: list[str]) -> Command:
        return Command(
            name=name,
            argv=argv,
            log=self.folder / "log",
            env=_environment(),
            folder=Path("/"),  # ours may be closed to that account
            identity=place.identity,
            end_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
        )

    async def _initialise(self, place: Place) -> None:
        """Make the cluster beside its final name, so that a run cut short leaves nothing half made."""
        words = place.cluster.with_name("password.new")
        fresh = place.cluster.with_name("cluster.new")
        shutil.rmtree(fresh, ignore_errors=True)
        words.unlink(missing_ok=True)
        fresh.mkdir(mode=0o700)
        with os.fdopen(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._password + "\n")
        if place.identity is not None:
            for path in (words, fresh):
                os.chown(path, place.identity.uid, place.identity.gid)
        options = ["-D", str(fresh), "-U", _ROLE, f"--pwfile={words}", "--auth=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C"]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += [] if self._durable else ["--no-sync"]
        program = str(place.programs / "bin" / "initdb")
        try:
            child = await Child.start(self._command(place, "initdb", [program, *options]))
            if await child.wait() != 0:
                raise child.failure(f"failed with code {child.returncode}")
        finally:
            words.unlink()
        fresh.rename(place.cluster)

    async def _clear_the_way(self, place: Place) -> None:
        """End a server whose parent was killed, and remove a pid file that names a stranger."""
        record = place.cluster / "postmaster.pid"
        pid = _recorded_pid(record)
        if pid is None:
            return
        program = str(place.cluster)
        if not await end_orphan(pid, program=program, end_signal=signal.SIGINT, limit_s=_STOP_S):
            raise EmbeddedServerFailed(f"a PostgreSQL with pid {pid} will not leave {program}")
        # PostgreSQL trusts this file even if its process id has since gone to another program.
        record.unlink(missing_ok=True)

    async def _launch(self, place: Place) -> Child:
        for attempt in range(_PORT_ATTEMPTS):
            self.port = self._wanted_port or free_port()
            argv = [str(place.programs / "bin" / "postgres"), "-D", str(place.cluster)]
            for name, value in self._settings().items():
                argv += ["-c", f"{name}={value}"]
            child = await Child.start(self._command(place, "postgres", argv))

            async def is_ready(pid: int = child.pid) -> bool:
                return _says_ready(place.cluster / "postmaster.pid", pid)

            try:
                await child.ready(is_ready, limit_s=_START_S)
            except EmbeddedServerFailed:
                await child.stop(limit_s=_STOP_S)
                again = not self._wanted_port and attempt + 1 < _PORT_ATTEMPTS
                if not (again and port_is_taken(child.last_lines())):
                    raise
            except BaseException:
                await child.stop(limit_s=_STOP_S)
                raise
            else:
                return child
        raise AssertionError("the last attempt returns or raises")

    def _settings(self) -> Mapping[str, str]:
        chosen = _DURABLE if self._durable else _FLEETING
        return {**_SETTINGS, **chosen, "port": str(self.port)}

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self._url("postgres"), timeout=_START_S)
        try:
            known = await connection.fetchval(
                "SELECT true FROM pg_database WHERE datname = $1", _DATABASE
            )
            if not known:
                await connection.execute(f"CREATE DATABASE {_DATABASE}")
        finally:
            await connection.close()


def _environment() -> Mapping[str, str]:
    # PGDATA, PGPORT and their like, meant for other servers, would be obeyed by ours.
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _recorded_pid(record: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        return int(record.read_text().splitlines()[0])
    return None


def _says_ready(record: Path, pid: int) -> bool:
    """Read the state that the postmaster writes into its pid file, as pg_ctl does."""
    with contextlib.suppress(FileNotFoundError):
        lines = record.read_text().splitlines()
        return len(lines) > _READY_LINE and lines[0] == str(pid) and "ready" in lines[_READY_LINE]
    return False
