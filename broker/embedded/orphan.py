"""Ends a server that outlived a parent that was killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_POLL_S = 0.02


async def end_orphan(pid: int, *, program: str, end_signal: signal.Signals, limit_s: float) -> bool:
    """End process `pid` if `program` is in its command line; True if nothing of that kind is left.

    Call it with the folder's lock held: then the process belongs to a parent that died.
    """
    deadline = time.monotonic() + limit_s
    if _runs(pid, program):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, end_signal)
    while _runs(pid, program):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def recorded_pid(record: Path) -> int | None:
    """Return the process id in the first line of a pid file, or None if it has none."""
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError):
        return int(record.read_text().splitlines()[0])
    return None


def _runs(pid: int, program: str) -> bool:
    """Ids are used again, after a restart of the machine above all: so look who has it."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False  # another account's process is not one that we started
    return program in _command_line(pid)


def _command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return ""
    listing = ["ps", "-o", "command=", "-p", str(pid)]
    return subprocess.run(listing, capture_output=True, text=True, check=False).stdout  # noqa: S603 - a number
