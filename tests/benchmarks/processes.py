"""What processes with their children cost, and the end of one."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree_cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process and its descendants have used, ended ones included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    # utime, stime, and those of children that have been waited for
    own_s = sum(int(fields[at]) for at in (11, 12, 13, 14)) / TICKS_PER_S
    return own_s + sum(map(tree_cpu_s, _children(pid)))


def tree_rss_mb(pid: int) -> float:
    """Return the resident megabytes of a process and its descendants, shared ones over again."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except FileNotFoundError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(map(tree_rss_mb, _children(pid)))


def _children(pid: int) -> list[int]:
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(each) for each in listed.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def stop_when_told() -> None:
    """Take SIGTERM for Ctrl-C from now on: what was started is stopped on the way out."""
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


async def wait_gone(process: asyncio.subprocess.Process, limit_s: float) -> None:
    """Wait for a process to end, and kill it when it does not."""
    try:
        async with asyncio.timeout(limit_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
