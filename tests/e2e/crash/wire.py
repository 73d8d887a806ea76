"""The wire between brokers and PostgreSQL: passes bytes on, and breaks at a chosen one."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Way = Literal["up", "down"]
"""To the server, and back."""
_COMMIT = b"COMMIT;\x00"
_EXECUTE, _SYNC = b"E\0\0\0\x09\0\0\0\0\0", b"S\0\0\0\x04"
"""Where no transaction was begun, a statement commits when the server gets to what follows it."""
_LEDGER = b"SET synchronous_commit"
"""What the books' own connections say first."""


@dataclass
class Line:
    """One connection; whether it is one of the books' own, and whether its next answer is lost."""

    is_ledger: bool = False
    is_doomed: bool = False


class Trap(ABC):
    """Waits for its moment to break a connection."""

    def __init__(self) -> None:
        self.sprung = asyncio.Event()

    @abstractmethod
    def springs(self, line: Line, way: Way, data: bytes) -> int | None:
        """How many of these bytes still pass before the line breaks; None: it holds."""


class AtByte(Trap):
    """Breaks the connection on which the so manieth byte goes that way."""

    def __init__(self, way: Way, bytes_left: int, *, ledger_only: bool) -> None:
        super().__init__()
        self._way = way
        self._bytes_left = bytes_left
        self._ledger_only = ledger_only

    def springs(self, line: Line, way: Way, data: bytes) -> int | None:
        if way != self._way or (self._ledger_only and not line.is_ledger):
            return None
        if len(data) <= self._bytes_left:
            self._bytes_left -= len(data)
            return None
        return self._bytes_left


class AtCommit(Trap):
    """Breaks a connection in place of the next commit, or of the answer to it."""

    def __init__(self, *, reaches_the_server: bool) -> None:
        super().__init__()
        self._reaches_the_server = reaches_the_server

    def springs(self, line: Line, way: Way, data: bytes) -> int | None:
        if way == "down":
            return 0 if line.is_doomed else None
        at = _commit_in(data, line)
        if at is None:
            return None
        line.is_doomed = self._reaches_the_server
        return None if line.is_doomed else at


def _commit_in(data: bytes, line: Line) -> int | None:
    if line.is_ledger and data.endswith(_EXECUTE + _SYNC):
        return len(data) - len(_SYNC)
    at = data.find(_COMMIT)
    return None if at < 0 else at


class Wire:
    """A TCP proxy on a free port of 127.0.0.1; `url` is the database's through it."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self._trap: Trap | None = None

    @property
    def url(self) -> str:
        who = self._target.netloc.rpartition("@")[0]
        return f"postgresql://{who}@127.0.0.1:{self._port}{self._target.path}"

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def spring(self, trap: Trap, limit_s: float) -> bool:
        """Set a trap; False when nothing went into it in time."""
        self._trap = trap
        try:
            async with asyncio.timeout(limit_s):
                await trap.sprung.wait()
        except TimeoutError:
            return False
        finally:
            self._trap = None
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the server is away, or the test is over
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner = await asyncio.open_connection(
            self._target.hostname, self._target.port
        )
        line = Line()
        pumps = [
            asyncio.create_task(self._pump(line, reader, inner, "up")),
            asyncio.create_task(self._pump(line, inner_reader, writer, "down")),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            inner.transport.abort()
            writer.transport.abort()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                line.is_ledger |= way == "up" and _LEDGER in data
                trap = self._trap
                passing = None if trap is None else trap.springs(line, way, data)
                writer.write(data if passing is None else data[:passing])
                await writer.drain()
                if trap is not None and passing is not None:
                    self._trap = None
                    trap.sprung.set()
                    return
