"""Runs a PostgreSQL of our own from the wheel, on one folder, for as long as we live."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from broker.embedded.child import Child, Command
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.orphan import end_orphan, recorded_pid
from broker.embedded.place import Place, find_place
from broker.embedded.server import EmbeddedServer

_ORPHAN_S = 20.0
_CONNECT_S = 20.0
_ROLE = _DATABASE = "broker"
_SLICE_NS = 100_000
"""A statement of the ledger computes for half a millisecond, and callers wait for it: whenever it
has waited, for the disk or a lock, it would wait for up to 3 ms more behind whoever computes."""
_STATE_LINE = 7  # of postmaster.pid
_ITERATIONS = "scram_iterations=1"
"""Iterating slows down who guesses a password. Ours are random, and each connection pays for it."""

_SEGMENT_MB = 4
"""Until the log of changes has files to use again, one is filled with zeros and synced whenever the
last is full, and all who commit wait for that: 13 ms for the usual 16 MB, 4 for these."""

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may have 107 bytes only, and folders are deep
    "shared_buffers": "128MB",
    # As they are by default with files of 16 MB; with smaller ones all three are smaller.
    "wal_buffers": "4MB",
    "min_wal_size": "80MB",
    "max_wal_size": "1GB",
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
}


class EmbeddedPostgres(EmbeddedServer):
    """`async with EmbeddedPostgres(folder) as server:` then `server.url`."""

    connections_max = 300
    """To be set before it is started."""
    _place: Place | None = None

    @property
    def url(self) -> str:
        """The DSN of the database `broker`, as asyncpg takes it; known once started."""
        return self._url(_DATABASE)

    @property
    def cluster(self) -> Path:
        """Where the data lies: `folder/cluster`, except for root in a closed folder."""
        return self._found().cluster

    async def start(self) -> None:
        """Start, and make the role's database at the first start; errors as in the base."""
        await super().start()
        try:
            await self._ensure_database()
        except BaseException:
            await self.stop()
            raise

    async def prepare(self) -> None:
        """Make the cluster if there is none, and clear the way to it."""
        self._place = find_place(self.folder)
        if not (self.cluster / "PG_VERSION").exists():
            await self._initialise(self._place)
        await self._clear_the_way()

    def command(self) -> Command:
        """Return the command of the postmaster."""
        chosen = {**_SETTINGS, **(_DURABLE if self.durable else _FLEETING), "port": str(self.port)}
        chosen["max_connections"] = str(self.connections_max)
        options = [f"--{name}={value}" for name, value in chosen.items()]
        return self._program("postgres", ["-D", str(self.cluster), *options])

    async def answers(self, pid: int) -> bool:
        """Read the state that the postmaster writes into its pid file, as pg_ctl does."""
        record = self.cluster / "postmaster.pid"
        if recorded_pid(record) != pid:
            return False
        lines = record.read_text().splitlines()
        return len(lines) > _STATE_LINE and lines[_STATE_LINE].strip() == "ready"

    def is_passing(self, log: str) -> bool:
        """A killed postmaster's busy backends, too, go away by themselves."""
        return super().is_passing(log) or "pre-existing shared memory block" in log

    def _found(self) -> Place:
        assert self._place is not None, "not started"
        return self._place

    def _url(self, database: str) -> str:
        return f"postgresql://{_ROLE}:{self.password}@127.0.0.1:{self.port}/{database}"

    def _program(self, name: str, options: list[str]) -> Command:
        place = self._found()
        return Command(
            name=name,
            argv=[str(place.programs / "bin" / name), *options],
            log=self.folder / "log",
            env=_environment(),
            folder=Path("/"),  # ours may be closed to the account that it runs as
            identity=place.identity,
            end_signal=signal.SIGINT,  # PostgreSQL's fast shutdown
            slice_ns=_SLICE_NS,
        )

    async def _initialise(self, place: Place) -> None:
        """Make the cluster under another name first, so that no half-made one is ever taken."""
        fresh = place.cluster.with_name("cluster.new")
        words = place.cluster.with_name("password.new")
        shutil.rmtree(fresh, ignore_errors=True)
        words.unlink(missing_ok=True)
        fresh.mkdir(mode=0o700)
        with os.fdopen(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self.password + "\n")
        if place.identity is not None:
            for path in (words, fresh):
                os.chown(path, place.identity.uid, place.identity.gid)
        options = ["-D", str(fresh), "-U", _ROLE, f"--pwfile={words}", "--auth=scram-sha-256"]
        options += ["--encoding=UTF8", "--locale=C", "-c", _ITERATIONS]
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options += [f"--wal-segsize={_SEGMENT_MB}"]
        options += [] if self.durable else ["--no-sync"]
        child = await Child.start(self._program("initdb", options))
        try:
            if await child.wait() != 0:
                raise child.failure(f"failed with code {child.returncode}")
        finally:
            child.sweep()
            words.unlink()
        fresh.rename(place.cluster)

    async def _clear_the_way(self) -> None:
        """End a server whose parent was killed, and remove a pid file that names a stranger."""
        record = self.cluster / "postmaster.pid"
        pid = recorded_pid(record)
        if pid is None:
            return
        left = await end_orphan(
            pid, program=str(self.cluster), end_signal=signal.SIGINT, limit_s=_ORPHAN_S
        )
        if not left:
            raise EmbeddedServerFailed(f"PostgreSQL with pid {pid} will not leave {self.cluster}")
        # PostgreSQL would take any live process with this id for a server of its own.
        record.unlink(missing_ok=True)

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self._url("postgres"), timeout=_CONNECT_S, ssl=False)
        try:
            known = "SELECT true FROM pg_database WHERE datname = $1"
            if not await connection.fetchval(known, _DATABASE):
                await connection.execute(f"CREATE DATABASE {_DATABASE}")
        finally:
            await connection.close()


def _environment() -> Mapping[str, str]:
    # PGDATA, PGPORT and their like, meant for other servers, would be obeyed by ours.
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
