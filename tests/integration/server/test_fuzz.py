"""The server's reader, fed with what is almost HTTP: it serves what was asked, or refuses."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any

import h11
import pytest
from hypothesis import given

from broker.server.blocks import Blocks
from broker.server.connection import Connection
from broker.server.limits import ServerLimits
from broker.server.request import Handler, Request
from broker.server.room import Room
from broker.server.uploads import Uploads
from tests.fuzzed import Wire, fuzz, hear, messy, run

pytestmark = pytest.mark.timeout(900)

REQUESTS = (
    b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /b?q=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b'POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\n{"a":1}',
    b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST /c HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: y\r\n\r\n",
    b"POST /pieces HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc",
    b"HEAD /d HTTP/1.0\r\n\r\n",
    b"GET /e HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
)
STATUSES = {100, 200, 400, 408, 413, 431}
_STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+\r\n")


class Server:
    """What connections need of a server; it notes what was asked."""

    def __init__(self) -> None:
        self.limits = ServerLimits(head_bytes_max=2_000, body_bytes_max=2_000, ahead_max=8)
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.stopping = False
        self.scratch = memoryview(bytearray(4_096))
        self.blocks = Blocks()
        self.room = Room()
        self.uploads = Uploads(self.limits, self.loop.time)
        self.served: list[tuple[str, bytes, bytes]] = []

    def open(self, request: Request) -> tuple[Handler, bool]:
        return self._serve, True

    async def _serve(self, request: Request) -> None:
        if request.trouble is not None:
            request.answer(request.trouble.status, b"", b"trouble")
            return
        target = request.raw_path + (b"?" + request.query if request.query else b"")
        self.served.append((request.method, target, request.body))
        request.answer(200, b"", b"fine")


async def played(pieces: list[bytes]) -> tuple[Server, Wire]:
    """Send the pieces as a caller would, then wait for ever."""
    server, wire = Server(), Wire()
    connection = Connection(server)
    connection.connection_made(wire)
    for piece in pieces:
        for _ in range(20):
            await asyncio.sleep(0)
        if wire.closing:
            break
        hear(connection, piece)
    for _ in range(20):
        await asyncio.sleep(0)
    for _ in range(3):
        connection.look(math.inf)
        await asyncio.sleep(0)
    assert wire.closing, "nobody stays for ever"
    connection.connection_lost(None)
    for _ in range(3):
        await asyncio.sleep(0)
    assert server.room.held_bytes == 0
    assert not server.connections
    return server, wire


def as_h11_reads(whole: bytes) -> tuple[list[tuple[str, bytes, bytes]], bool]:
    """The requests that another parser makes of the bytes, and whether it then refuses the rest."""
    found: list[tuple[str, bytes, bytes]] = []
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(whole)
    body = b""
    request: Any = None
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((request.method.decode(), bytes(request.target), body))
                parser.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
                parser.send(h11.EndOfMessage())
                parser.start_next_cycle()
            else:
                return found, False
    except h11.RemoteProtocolError:
        return found, True
    except h11.LocalProtocolError:  # there is no next one on this connection
        return found, False


@given(messy(REQUESTS))
@fuzz(150)
def test_whatever_comes_is_served_as_it_was_asked_or_refused(pieces: list[bytes]) -> None:
    server, wire = run(played(pieces))
    statuses = {int(each) for each in _STATUS_LINE.findall(bytes(wire.sent))}
    assert statuses <= STATUSES
    if wire.sent:
        assert wire.sent.startswith(b"HTTP/1.1 ")
    theirs, refused = as_h11_reads(b"".join(pieces))
    assert server.served[: len(theirs)] == theirs[: len(server.served)]
    # What one refuses the other may serve; but nobody finds a request where the other reads on.
    assert refused or len(server.served) <= len(theirs)
