"""What the tests of processes look at: who lives, and programs of their own to run and kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

_LIMIT_S = 60.0


def lives(pid: int) -> bool:
    """Whether the process runs; one that only waits to be buried does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def mode(path: Path) -> int:
    """Who may do what with the file or folder."""
    return stat.S_IMODE(path.stat().st_mode)


def command_line(pid: int) -> str:
    """The words it was started with, as everybody on the machine can see them."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


def family(folder: Path) -> set[int]:
    """The living processes that have `folder` in their command line or as their working folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and lives(int(entry.name)):
            with contextlib.suppress(OSError):
                words = command_line(int(entry.name))
                if str(folder) in words or (entry / "cwd").resolve().is_relative_to(folder):
                    found.add(int(entry.name))
    return found


@contextlib.asynccontextmanager
async def program(text: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a Python program in a process of its own, killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()
