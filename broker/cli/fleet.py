"""Several broker processes on one port: started, watched, replaced when they die, stopped together.

The socket is bound here and inherited by all: whoever is free takes the next connection, see
`broker.server.sharing`, and the connections that wait to be taken survive the death of any of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from broker.cli import lean
from broker.embedded.leash import leashed
from broker.embedded.readiness import answers
from broker.server import door
from broker.server.listener import BACKLOG, signals
from broker.server.sharing import BOARD, Board

BACK_OFF_S: Final = 0.1
BACK_OFF_S_MAX: Final = 10.0
STEADY_S: Final = 30.0
"""A worker that has lived so long is replaced at once, whatever befell those before it."""
STOP_S: Final = 60.0
"""Calls under way have so long to come to their end."""
_PROBE_S: Final = 1.0
_POLL_S: Final = 0.05

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Fleet:
    """`count` workers on `host` and `port`, which may be 0 for a free one."""

    host: str
    port: int
    count: int
    notice_s: float = 0.0
    """So long each goes on serving once it is told to stop."""
    _children: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    """By the number of the worker."""
    _tallies: str = ""
    """The folder of what each counts, and of the board on which they tell each other."""

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status: 0 when all were told to end and did,
        1 when the first worker cannot begin. Raises OSError for a port that cannot be bound."""
        asked = asyncio.Event()
        with (
            signals(asked.set),
            TemporaryDirectory(prefix="broker-workers-") as self._tallies,
            _bound(self.host, self.port) as listening,
        ):
            self.port = listening.getsockname()[1]
            Board.lay_out(Path(self._tallies) / BOARD, self.count)
            told = asyncio.create_task(asked.wait())
            # One first: what keeps it from beginning would keep all of them.
            first = asyncio.create_task(self._first(listening))
            await asyncio.wait([first, told], return_when=asyncio.FIRST_COMPLETED)
            keepers = []
            begun = first.result() if first.done() else None
            if begun is not None and not told.done():
                keepers = [asyncio.create_task(self._keep(0, listening, begun))]
                others = range(1, self.count)
                keepers += [asyncio.create_task(self._keep(each, listening)) for each in others]
                await told
            first.cancel()
            told.cancel()
            for keeper in keepers:
                keeper.cancel()
            codes = await self._stop(listening)
        # One that had not yet begun ends by the signal itself.
        fine = {0, -signal.SIGTERM}
        return 0 if asked.is_set() and fine.issuperset(codes) else 1

    async def _first(self, listening: socket.socket) -> asyncio.subprocess.Process | None:
        """Start the first worker and wait until it answers; None when it cannot begin, or ends
        before."""
        try:
            child = await self._start(0, listening)
        except OSError as error:
            _log.error("worker_not_started", worker=0, error=str(error))
            return None
        ended = asyncio.create_task(child.wait())
        answered = asyncio.create_task(self._answers())
        try:
            await asyncio.wait([ended, answered], return_when=asyncio.FIRST_COMPLETED)
            return None if ended.done() else child
        finally:
            ended.cancel()
            answered.cancel()

    async def _answers(self) -> None:
        """Wait until the port is answered on."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - compared
        url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/health"
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_S):
                    if await answers(url):
                        return
            await asyncio.sleep(_POLL_S)

    async def _keep(
        self,
        number: int,
        listening: socket.socket,
        child: asyncio.subprocess.Process | None = None,
    ) -> None:
        """Have a worker of this number run for ever, `child` first; ends by cancellation."""
        falls = 0
        while True:
            begun_s = time.monotonic()
            pid = code = None
            try:
                child = child or await self._start(number, listening)
                pid, code = child.pid, await child.wait()
            except OSError as error:  # no process to be had now, which may pass
                _log.error("worker_not_started", worker=number, error=str(error))
            child = None
            self._children.pop(number, None)  # how it ended says nothing of how the others will
            lived_s = time.monotonic() - begun_s
            falls = 0 if lived_s >= STEADY_S else falls + 1
            pause_s = min(BACK_OFF_S * 2.0 ** (falls - 1), BACK_OFF_S_MAX) if falls else 0.0
            _log.error("worker_ended", worker=number, pid=pid, code=code, again_in_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _start(self, number: int, listening: socket.socket) -> asyncio.subprocess.Process:
        descriptor = listening.fileno()
        worker = f"{number}:{descriptor}:{self._tallies}"
        child = await asyncio.create_subprocess_exec(
            *leashed(lean.command(self.host, self.port, worker)),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us to pass on
            pass_fds=(descriptor,),
        )
        self._children[number] = child
        return child

    async def _stop(self, listening: socket.socket) -> list[int]:
        """Have all end: asked first, killed when the time is over; return their exit codes."""
        children = list(self._children.values())
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        ends = [asyncio.create_task(child.wait()) for child in children]
        if ends:
            await asyncio.wait(ends, timeout=self.notice_s)
        # They go on taking who has come for a moment, and nobody else comes.
        door.deafen(listening)
        # Ours too, or whoever still connects would wait for nobody.
        listening.close()
        _, running = await asyncio.wait(ends, timeout=STOP_S) if ends else ((), ())
        for child in children if running else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return await asyncio.gather(*ends)


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens until the block ends."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=BACKLOG) as listening:
        listening.setblocking(False)
        yield listening
