"""One broker process of a test: started, stopped, killed, and waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from broker.embedded.child import Child, Command
from tests.plain import TRUSTS_NOBODY
from tests.waiting import PATIENCE_S


class BrokerProcess:
    """One `broker serve` on a port that it keeps over restarts."""

    def __init__(self, env: Mapping[str, str], log: Path, port: int, workers: int = 1) -> None:
        listening = ("--host", "127.0.0.1", "--port", str(port))
        argv = [sys.executable, "-m", "broker.cli.main", "serve", *listening]
        argv += ["--workers", str(workers)]
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._command = Command("broker", argv, log, env=env)
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        """The process; there must have been a start."""
        assert self._child is not None
        return self._child

    async def start(self) -> None:
        """Start it, again after a stop; returns when it is ready."""
        self._child = await Child.start(self._command)
        async with httpx.AsyncClient(verify=TRUSTS_NOBODY) as http:

            async def ready() -> bool:
                with contextlib.suppress(httpx.HTTPError):
                    return (await http.get(f"{self.url}/health/ready")).is_success
                return False

            await self._child.ready(ready, limit_s=PATIENCE_S)

    def workers(self) -> list[int]:
        """The process ids of its workers, where it has several."""
        pid = self.child.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return sorted(int(each) for each in children.split())

    def ask_to_stop(self) -> None:
        """Send SIGTERM, and do not wait."""
        os.kill(self.child.pid, signal.SIGTERM)

    async def stop(self) -> None:
        """Stop it gracefully; a process that had to be killed fails the test."""
        if self._child is None or self._child.returncode is not None:
            return
        self.ask_to_stop()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._child.wait()
        finally:
            await self._child.stop(limit_s=0.1)

    async def kill(self) -> None:
        """`kill -9`."""
        os.kill(self.child.pid, signal.SIGKILL)
        await self.child.wait()
