"""A way to PostgreSQL that can be cut: it passes on, swallows an answer, hangs, or refuses all."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit


class Way:
    """A TCP proxy on a free port of 127.0.0.1; `url` is the database's through it."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = 0
        self.open = True
        self._flows = asyncio.Event()
        self._flows.set()
        self.swallow_next_answer = False
        """Cut the connection that gets the next answer, without passing it on."""
        self.swallowed = asyncio.Event()

    @property
    def url(self) -> str:
        who = self._target.netloc.rpartition("@")[0]
        return f"postgresql://{who}@127.0.0.1:{self._port}{self._target.path}"

    async def __aenter__(self) -> Way:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.close()
        self._flows.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Cut all connections, and take no new ones until `open` is set again."""
        self.open = False
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Pass nothing on any more, and cut nothing: as a server that was stopped in its tracks."""
        self._flows.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        inner_reader, inner_writer = await asyncio.open_connection(
            self._target.hostname, self._target.port
        )
        self._writers |= {writer, inner_writer}
        if not self.open:  # closed meanwhile
            self.close()
            return
        for task in (
            asyncio.create_task(self._pump(reader, inner_writer)),
            asyncio.create_task(self._pump(inner_reader, writer, answers=True)),
        ):
            self._tasks.add(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if answers and self.swallow_next_answer:
                    self.swallow_next_answer = False
                    self.swallowed.set()
                    break
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
