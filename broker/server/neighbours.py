"""What the reader of a connection needs of the connection and of the server around it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from broker.server.blocks import Blocks
from broker.server.limits import ServerLimits
from broker.server.request import Carrier, Handler, Request
from broker.server.room import Room
from broker.server.uploads import Uploads


class Server(Protocol):
    """What a connection needs of the server that it belongs to."""

    limits: ServerLimits
    loop: asyncio.AbstractEventLoop
    stopping: bool
    scratch: memoryview
    """For what is taken at once, by whichever connection."""
    blocks: Blocks
    room: Room
    """For bodies."""
    uploads: Uploads
    """Those that are coming."""

    def open(self, request: Request) -> tuple[Handler, bool]:
        """Return the handler of a request whose head has come, and whether it wants it whole."""


class Taker(Carrier, Protocol):
    """The connection, as far as the reader and the runner need it."""

    closed: bool

    def queue(self, request: Request) -> None:
        """Serve a request in its turn: it has come whole, or its handler reads it as it comes."""

    def invite(self) -> None:
        """Tell a caller that waits for it to send its body."""


class NotServed(Exception):
    """The bytes are no request that is served; `status` says why."""

    def __init__(self, status: int) -> None:
        self.status = status
