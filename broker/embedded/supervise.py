"""Runs several processes as one: all are up, or all are stopped and it is said which one ended."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import NoReturn, Self

from broker.embedded import guardian
from broker.embedded.child import Child, Command, Probe
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.server import EmbeddedServer

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_SIGNAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """A command that runs for as long as all the others do."""

    command: Command
    ready: Probe | None = None
    """None: ready as soon as it runs. For an HTTP server: `readiness.answering(url)`."""
    ready_limit_s: float = 60.0
    stop_limit_s: float = 10.0


class Supervisor:
    """`async with Supervisor() as up:` then `up.host(server)`, `up.start(service)`, `up.run()`.

    SIGINT, SIGTERM and the unexpected end of a child interrupt the block wherever it stands. Then
    everything is stopped, the last started first. After a signal the block ends normally and
    `stopped_by` tells which; after an unexpected end it raises `EmbeddedServerFailed`. A second
    signal kills instead of waiting. If we are killed ourselves, a guardian process does the rest.
    """

    def __init__(self) -> None:
        self.stopped_by: signal.Signals | None = None
        self._failure: EmbeddedServerFailed | None = None
        self._stack = AsyncExitStack()
        self._children: list[Child] = []
        self._stopping: set[Child] = set()
        self._watchers: set[asyncio.Task[None]] = set()
        self._guardian: asyncio.subprocess.Process | None = None
        self._owner: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._interrupted = False
        self._cut = False
        self._signalled_at_s = -math.inf

    async def start(self, service: Service) -> Child:
        """Start a service and wait until it is ready; `EmbeddedServerFailed` if it never is."""
        child = await Child.start(service.command)
        self._stack.push_async_callback(
            self._stop, child, partial(child.stop, limit_s=service.stop_limit_s)
        )
        self._watch(child)
        if service.ready is not None:
            await child.ready(service.ready, limit_s=service.ready_limit_s)
        return child

    async def host(self, server: EmbeddedServer) -> None:
        """Start an embedded server, to be stopped after everything that is started later."""
        await server.start()
        self._stack.push_async_callback(self._stop, server.child, server.stop)
        self._watch(server.child)

    async def run(self) -> NoReturn:
        """Wait, for ever, to be interrupted."""
        while True:
            await asyncio.Event().wait()

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        assert self._owner is not None
        self._cancelling = self._owner.cancelling()
        self._guardian = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", guardian.__file__),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        self._interrupted = True  # from here on, nothing may cut the stopping short
        try:
            await self._stack.aclose()
        finally:
            for watcher in self._watchers:
                watcher.cancel()
            for number in _SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)
            await self._dismiss_guardian()
        return self._is_answered(error)

    def _is_answered(self, error: BaseException | None) -> bool:
        """Turn the cancellation with which we interrupted the block into what it stands for."""
        assert self._owner is not None
        if not self._cut:
            return False
        also_cancelled_by_others = self._owner.uncancel() > self._cancelling
        if also_cancelled_by_others or not isinstance(error, asyncio.CancelledError):
            return False
        if self._failure is not None and self.stopped_by is None:
            raise self._failure from None
        return True

    def _on_signal(self, number: signal.Signals) -> None:
        now_s = time.monotonic()
        # A terminal and a wrapper may both pass on one Ctrl-C: that is no impatience yet.
        impatient = self._interrupted and now_s > self._signalled_at_s + _ONE_SIGNAL_S
        self._signalled_at_s = now_s
        if impatient:
            for child in self._children:
                child.sweep()
        elif not self._interrupted:
            self.stopped_by = number
            self._interrupt()

    def _interrupt(self) -> None:
        if not self._interrupted:
            self._interrupted = self._cut = True
            assert self._owner is not None
            self._owner.cancel()

    def _watch(self, child: Child) -> None:
        self._children.append(child)
        self._tell_guardian(f"+ {child.pid} {int(child.command.end_signal)}")
        self._watchers.add(asyncio.create_task(self._report_end(child)))

    async def _report_end(self, child: Child) -> None:
        code = await child.wait()
        if child not in self._stopping and self._failure is None:
            self._failure = child.failure(f"ended unexpectedly with code {code}")
            self._interrupt()

    async def _stop(self, child: Child, stop: Callable[[], Awaitable[None]]) -> None:
        self._stopping.add(child)
        await stop()
        self._tell_guardian(f"- {child.pid}")

    def _tell_guardian(self, line: str) -> None:
        assert self._guardian is not None
        assert self._guardian.stdin is not None
        self._guardian.stdin.write(f"{line}\n".encode())

    async def _dismiss_guardian(self) -> None:
        assert self._guardian is not None
        assert self._guardian.stdin is not None
        self._guardian.stdin.close()
        await self._guardian.wait()
