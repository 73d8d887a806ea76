"""Ctrl-C and SIGTERM end a study of several processes within a moment, and lose nothing done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.simulations.tiny import TOML
from tests.waiting import until

LONG = TOML.replace("horizon_s = 40.0", "horizon_s = 40_000.0")
"""One that nobody waits for."""
LIMIT_S = 30.0


@asynccontextmanager
async def study(
    folder: Path, toml: str, *options: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`broker sweep` with two workers, in a group of processes of its own; none is left of it."""
    (folder / "tiny.toml").write_text(toml)
    words = ("sweep", "tiny.toml", "--controller", "posted", "--workers", "2", "--out", "out")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.cli.main", *words, *options),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process

        async def nobody_left() -> bool:
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return True
            return False

        await until(nobody_left)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def kept(folder: Path) -> int:
    """How many cells are written down by now."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("out/cells-*.jsonl"))


async def stopped(process: asyncio.subprocess.Process, number: signal.Signals) -> str:
    """Send a signal as `timeout` does, to the process and at once to its group; return what was
    said in the end."""
    process.send_signal(number)
    os.killpg(process.pid, number)
    said, complained = await asyncio.wait_for(process.communicate(), LIMIT_S)
    assert complained.decode() == ""
    assert process.returncode == 128 + number
    return said.decode()


async def test_a_stop_keeps_and_reports_what_is_done(tmp_path: Path) -> None:
    grid = ("--grid", "demand.scale=1,2", "--seeds", "300")
    async with study(tmp_path, TOML, *grid) as process:

        async def some_are_kept() -> bool:
            return kept(tmp_path) >= 2

        await until(some_are_kept, LIMIT_S)
        said = await stopped(process, signal.SIGTERM)
    assert "Stopped. What is done is kept" in said
    assert "out/report.html" in said.replace("\n", "")
    assert "was stopped before its end" in (tmp_path / "out/report.html").read_text()
    assert kept(tmp_path) < 600


async def test_a_stop_does_not_wait_for_long_cells(tmp_path: Path) -> None:
    grid = ("--grid", "demand.scale=1,2", "--seeds", "2")
    async with study(tmp_path, LONG, *grid) as process:

        async def is_begun() -> bool:
            return (tmp_path / "out").exists()

        await until(is_begun, LIMIT_S)
        said = await stopped(process, signal.SIGINT)
    assert "Stopped." in said
    assert kept(tmp_path) == 0
