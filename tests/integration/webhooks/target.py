"""A webhook's target on a real socket: it keeps what it gets and answers as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

Answer = bytes | None
"""The bytes of an answer; None hangs until the other side leaves."""


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


OK = answer(200)
BROKEN = answer(500, body=b"oops")


@dataclass(frozen=True)
class Got:
    """One post as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body, decoded."""
        decoded: dict[str, Any] = msgspec.json.decode(self.body)
        return decoded

    @property
    def id(self) -> str:
        """The event's."""
        return str(self.event["id"])


@dataclass
class Target:
    """`answers` says what to answer to a post; by default all is taken."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    answers: Callable[[Got], Answer] = lambda _: OK
    connections: int = 0
    under_way: int = 0
    most_at_once: int = 0

    @property
    def ids(self) -> list[str]:
        """Of the events, in the order in which they came."""
        return [each.id for each in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                await self._one(reader, writer)
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        request, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers["content-length"]))
        got = Got(request.split()[1], headers, body)
        self.got.append(got)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            said = self.answers(got)
            if said is None:
                await reader.read()
                raise ConnectionResetError
            await asyncio.sleep(0)
            writer.write(said)
            await writer.drain()
        finally:
            self.under_way -= 1


@contextlib.asynccontextmanager
async def target(tls: ssl.SSLContext | None = None) -> AsyncIterator[Target]:
    """A target that listens for the block; connections that are open then are cut."""
    made = Target()
    serving: set[asyncio.Task[Any]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(made.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    host = "127.0.0.1" if tls is None else "localhost"
    port = server.sockets[0].getsockname()[1]
    made.url = f"{'http' if tls is None else 'https'}://{host}:{port}/hook"
    try:
        yield made
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
