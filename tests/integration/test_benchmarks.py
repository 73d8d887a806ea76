"""What a benchmark has started is stopped with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURES = """
import asyncio, os, signal, sys
from argparse import Namespace
from pathlib import Path
from tests.benchmarks.gateway import _measure
from tests.benchmarks.processes import stop_when_told

async def main(folder):
    await _measure(folder, folder, Namespace(seconds=1, rounds=1, connections=1, stream=False))

stop_when_told()
asyncio.run(main(Path(sys.argv[1])))
"""
RUNS_A_PEER = """
import pathlib, subprocess, sys, time
peer = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
try:
    told = pathlib.Path(__file__).with_name("peer")
    told.with_suffix(".new").write_text(str(peer.pid))
    told.with_suffix(".new").rename(told)
    time.sleep(600)
finally:
    peer.terminate()
    peer.wait()
"""


async def test_a_benchmark_that_is_told_to_end_leaves_no_peer(tmp_path: Path) -> None:
    (tmp_path / "gateway_cost.py").write_text(RUNS_A_PEER)
    benchmark = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", MEASURES, str(tmp_path)),
        cwd=ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(60):
            while not (tmp_path / "peer").exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        peer = int((tmp_path / "peer").read_text())
        os.kill(peer, 0)
        benchmark.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await benchmark.wait() != 0
        assert not Path(f"/proc/{peer}").exists()
    finally:
        if benchmark.returncode is None:
            benchmark.kill()
            await benchmark.wait()
        if (tmp_path / "peer").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int((tmp_path / "peer").read_text()), signal.SIGKILL)
