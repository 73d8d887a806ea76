"""One child process with its log file: started on a leash, watched, stopped by its own process id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.leash import Identity, leashed

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Command:
    """What to run, as whom, and where its output goes (appended)."""

    name: str
    argv: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    """The whole environment; None hands on our own."""
    folder: Path | None = None
    identity: Identity | None = None
    end_signal: signal.Signals = signal.SIGTERM
    """Asks the command to end; also sent when its parent dies."""


class Child:
    """A running `Command`; it leads a session and a process group of its own."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, seen: int) -> None:
        self.command = command
        self._process = process
        self._log_start = seen

    @classmethod
    async def start(cls, command: Command) -> Child:
        """Start it; a program that cannot be run shows as a child that ended, with its reason."""
        command.log.parent.mkdir(parents=True, exist_ok=True)
        with command.log.open("ab") as log:
            seen = log.tell()
            process = await asyncio.create_subprocess_exec(
                *leashed(command.argv, end_signal=command.end_signal, identity=command.identity),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=command.env,
                cwd=command.folder,
            )
        return cls(command, process, seen)

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end and return its code."""
        return await self._process.wait()

    async def ready(self, probe: Callable[[], Awaitable[bool]], *, limit_s: float) -> None:
        """Wait until `probe` says yes; raise `EmbeddedServerFailed` if it ends or the limit passes."""
        deadline = time.monotonic() + limit_s
        while not await probe():
            if self.returncode is not None:
                raise self.failure(f"ended with code {self.returncode} while starting")
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {limit_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def stop(self, *, limit_s: float) -> None:
        """Ask it to end, kill its whole process group after `limit_s`, and wait."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self.command.end_signal)
            try:
                async with asyncio.timeout(limit_s):
                    await self._process.wait()
            except TimeoutError:
                pass
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """Kill what is left of its process group, the child's own children included."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def last_lines(self, count: int = 20) -> str:
        """Return the end of what it wrote since this start."""
        with self.command.log.open("rb") as log:
            log.seek(self._log_start)
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-count:])

    def failure(self, what: str) -> EmbeddedServerFailed:
        """Return the error that says `what` became of it, with its last lines."""
        return EmbeddedServerFailed(
            f"{self.name} {what}; the end of {self.command.log}:\n{self.last_lines()}",
            facts={"name": self.name, "log": str(self.command.log), "returncode": self.returncode},
        )


async def end_orphan(pid: int, *, program: str, end_signal: signal.Signals, limit_s: float) -> bool:
    """End process `pid` if it runs `program`; True if nothing of that kind is left.

    Call it with the folder's lock held: then the process belongs to a parent that died, and has
    at most been told to end.
    """
    deadline = time.monotonic() + limit_s
    if await runs(pid, program):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, end_signal)
    while await runs(pid, program):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


async def runs(pid: int, program: str) -> bool:
    """Tell whether `pid` lives and has `program` in its command line; ids are used again."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # not ours, so not one that we started
    record = Path(f"/proc/{pid}/cmdline")
    if record.exists():
        with contextlib.suppress(OSError):
            return program.encode() in record.read_bytes()
        return False
    listing = await asyncio.create_subprocess_exec(
        "ps", "-o", "command=", "-p", str(pid), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await listing.communicate()
    return program.encode() in output
