"""One child process with its log file: started on a leash, watched, stopped by its own id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.leash import Identity, leashed

_POLL_S = 0.02
_PROBE_S = 2.0
_LOG_BYTES_MAX = 10_000_000

Probe = Callable[[], Awaitable[bool]]


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
    slice_ns: int = 0
    """So long it asks for the processor at a time; 0 leaves that to the kernel."""


class Child:
    """A running `Command`; it leads a session and a process group of its own."""

    def __init__(self, command: Command, process: asyncio.subprocess.Process, seen: int) -> None:
        self.command = command
        self._process = process
        self._log_start = seen
        self._swept = False

    @classmethod
    async def start(cls, command: Command) -> Child:
        """Start it; a program that cannot be run shows as a child that ended, with its reason."""
        with _open_log(command.log) as log:
            seen = log.tell()
            process = await asyncio.create_subprocess_exec(
                *leashed(
                    command.argv,
                    end_signal=command.end_signal,
                    identity=command.identity,
                    slice_ns=command.slice_ns,
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=command.env,
                cwd=command.folder,
                start_new_session=True,  # Ctrl-C in a terminal is for us to pass on, in order
            )
        return cls(command, process, seen)

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def pid(self) -> int:
        """The process id, which is that of its process group too."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for its end and return its code."""
        return await self._process.wait()

    async def ready(self, probe: Probe, *, limit_s: float) -> None:
        """Wait for `probe` to say yes; `EmbeddedServerFailed` if it ends or the limit passes."""
        deadline = time.monotonic() + limit_s
        while True:
            if self.returncode is not None:
                raise self.failure(f"ended with code {self.returncode} while starting")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_S):
                    if await probe():
                        return
            if time.monotonic() > deadline:
                raise self.failure(f"was not ready after {limit_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def stop(self, *, limit_s: float) -> None:
        """Ask it to end, kill its whole process group after `limit_s`, and wait."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(self.command.end_signal)
            # Not `asyncio.timeout`: in a task that was cancelled, as by Ctrl-C, the one of Python
            # 3.11.2 lets the cancellation through again when the time is over.
            await asyncio.wait({asyncio.ensure_future(self._process.wait())}, timeout=limit_s)
        self.sweep()
        await self._process.wait()

    def sweep(self) -> None:
        """Kill what is left of its process group, the child's own children included."""
        if not self._swept:  # once: after its end the id may come to name a stranger's group
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        self._swept = True

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


def _open_log(path: Path) -> IO[bytes]:
    """Open a log for its owner's eyes only, beginning a new one when it has grown large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _LOG_BYTES_MAX:
            path.rename(path.with_name(f"{path.name}.old"))
    log = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    log.seek(0, os.SEEK_END)
    return log
