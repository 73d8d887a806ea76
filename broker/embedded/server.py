"""What the embedded servers share: a locked folder, a password, a free port, a start and a stop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.embedded.child import Child, Command
from broker.embedded.failures import EmbeddedServerFailed
from broker.embedded.lock import FolderLock
from broker.embedded.port import free_port
from broker.embedded.secret import remembered_secret

_START_S = 60.0
"""Long, for recovery after a kill reads back what was written since the last checkpoint."""
_STOP_S = 20.0
_OBSTACLE_S = 15.0
_PAUSE_S = 0.1


class EmbeddedServer:
    """A server on 127.0.0.1 for as long as we live; its data, log and password are in `folder`.

    The password is random and lies in `folder/password` (mode 0600), so that other accounts of the
    machine stay out. `durable=False` is for tests: a crash of the machine may lose data then.
    """

    def __init__(self, folder: Path, *, port: int | None = None, durable: bool = True) -> None:
        self.folder = folder.resolve()
        self.durable = durable
        self.port = port or 0
        self.password = ""
        self._port_is_fixed = bool(port)
        self._lock = FolderLock(self.folder)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where clients connect; known once started."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Make the data if there is none, and end a server that a killed parent left behind."""
        raise NotImplementedError

    def command(self) -> Command:
        """Return the command that listens on `port`."""
        raise NotImplementedError

    async def answers(self, pid: int) -> bool:
        """Tell whether the server with this process id serves by now."""
        raise NotImplementedError

    def is_passing(self, log: str) -> bool:
        """Tell whether what kept it from starting may be gone at the next attempt."""
        return not self._port_is_fixed and "address already in use" in log.lower()

    @property
    def child(self) -> Child:
        """The running process."""
        assert self._child is not None, "not started"
        return self._child

    async def start(self) -> None:
        """Start with the data of earlier runs.

        Raises `AlreadyRunning` if another process has the folder, or `EmbeddedServerFailed` with
        the last lines of the log.
        """
        assert self._child is None, "started already"
        self._lock.acquire()
        try:
            self.password = remembered_secret(self.folder / "password")
            await self.prepare()
            self._child = await self._launch()
        except BaseException:
            self._lock.release()
            raise

    async def stop(self) -> None:
        """Stop cleanly, and if it does not within 20 s, by force."""
        child, self._child = self._child, None
        try:
            if child is not None:
                await child.stop(limit_s=_STOP_S)
        finally:
            self._lock.release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _launch(self) -> Child:
        deadline = time.monotonic() + _OBSTACLE_S
        while True:
            if not self._port_is_fixed:
                self.port = free_port()
            child = await Child.start(self.command())
            try:
                await self._until_ready(child)
            except BaseException as error:
                await child.stop(limit_s=_STOP_S)
                if not isinstance(error, EmbeddedServerFailed):
                    raise
                if time.monotonic() > deadline or not self.is_passing(child.last_lines()):
                    raise
            else:
                return child
            await asyncio.sleep(_PAUSE_S)

    async def _until_ready(self, child: Child) -> None:
        async def probe() -> bool:
            return await self.answers(child.pid)

        await child.ready(probe, limit_s=_START_S)
