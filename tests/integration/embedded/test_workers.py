"""The two workers of `broker worker` live and end together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from broker.cli.workers import run_together

_STAYS = "import signal, sys, time; open(sys.argv[1], 'w').close(); time.sleep(60)"


def staying(file: Path) -> list[str]:
    return [sys.executable, "-S", "-c", _STAYS, str(file)]


async def test_when_one_ends_the_other_is_ended_and_it_is_no_success(tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        falls = [sys.executable, "-S", "-c", "pass"]
        assert await run_together([staying(tmp_path / "one"), falls], os.environ) == 1


@pytest.mark.parametrize("heeds", [True, False])
async def test_both_are_asked_to_end_when_it_is(tmp_path: Path, heeds: bool) -> None:
    """Told to end, a worker finishes what it does and ends with 0."""
    answer = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0));" if heeds else ""
    commands = [
        [sys.executable, "-S", "-c", f"import signal, sys; {answer} {_STAYS}", str(tmp_path / name)]
        for name in ("one", "two")
    ]
    async with asyncio.timeout(20):
        run = asyncio.create_task(run_together(commands, os.environ))
        while len(list(tmp_path.iterdir())) < 2:  # noqa: ASYNC110 - another process's doing
            await asyncio.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await run == (0 if heeds else 1)
