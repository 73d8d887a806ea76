"""Listens on a port, and stops gracefully: no new request, those under way come to their end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog

from broker.server import door
from broker.server.blocks import Blocks
from broker.server.connection import Connection
from broker.server.limits import ServerLimits
from broker.server.reader import SCRATCH_BYTES
from broker.server.request import Handler, Request
from broker.server.room import Room
from broker.server.sharing import FULL_S, Shared, Turns
from broker.server.shedding import Shedding, TurnedAway
from broker.server.uploads import Uploads

Open = Callable[[Request], tuple[Handler, bool]]

SWEEP_S: Final = 0.25
"""How often overdue connections are looked for; one timer for all of them."""
HALT_S: Final = 0.5
"""So late, this process was halted, and could not hear what its callers said."""
BACKLOG: Final = 2_048
_POLL_S: Final = 0.02
_SPEAKS_S: Final = 0.1
"""Who has connected says within so long what it wants."""

_log = structlog.get_logger(__name__)


class Listener:
    """One listening socket and its connections. `open` finds the handler of each request."""

    def __init__(self, open_request: Open, limits: ServerLimits) -> None:
        self.open = open_request
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.stopping = False
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.blocks = Blocks()
        self.room = Room()
        self.uploads = Uploads(limits, self.loop.time)
        self._shedding = Shedding(
            self.connections, limits.connections_max, self.uploads, self.loop.time
        )
        self._turned_away: set[TurnedAway] = set()
        self._server: asyncio.Server | None = None
        self._shared: Shared | None = None
        self._turns: Turns | None = None
        self._returning: asyncio.Task[None] | None = None
        self._taken_at = 0.0
        """Loop time at which the last connection was taken."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweep_at = 0.0

    async def start(self, host: str, port: int, shared: Shared | None = None) -> int:
        """Listen, on a socket that others listen on too if one is `shared`; return the port,
        which is a free one for 0. Raises OSError."""
        if shared is None:
            self._server = await self._listening(host=host, port=port)
        else:
            self._shared, self._turns = shared, Turns(shared.board, self.limits.connections_max)
            self._server = await self._listening(sock=shared.socket())
        self._sweep_at = self.loop.time()
        self._sweep()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def _listening(self, **place: Any) -> asyncio.Server:
        return await self.loop.create_server(self._accept, **place, backlog=BACKLOG)

    async def stop(self, limit_s: float) -> None:
        """Take no more connections, and of those there are what was asked by then; cut off what is
        not done within `limit_s`."""
        self.stopping = True
        if self._turns is not None:
            self._turns.withdraw()
        due = self.loop.time() + limit_s
        server, self._server = self._server, None
        if server is not None:
            await self._shut(server)
        while self.connections and self.loop.time() < due:
            for connection in tuple(self.connections):
                connection.close_if_idle()
            await asyncio.sleep(_POLL_S)
        for connection in tuple(self.connections):
            connection.abort()
        await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _shut(self, server: asyncio.Server) -> None:
        """Listen no more, and hear out who has just connected: what it sends may be on its way."""
        if self._shared is not None:
            await asyncio.sleep(_SPEAKS_S)  # where all stop, whoever told them deafens the socket
            server.close()
        else:
            await door.shut(server)
        await asyncio.sleep(max(0.0, self._taken_at + _SPEAKS_S - self.loop.time()))

    def _accept(self) -> asyncio.BaseProtocol:
        self._taken_at = self.loop.time()
        has_room = self._shedding.make_room()
        if self._turns is not None:
            connections = len(self.connections) + has_room  # which are only counted later
            self.loop.call_soon(self._share, self._turns, connections)
        return Connection(self) if has_room else TurnedAway(self._turned_away)

    def _tell(self, turns: Turns) -> None:
        connections = len(self.connections)
        turns.tell(connections)
        if connections >= self.limits.connections_max:
            self._share(turns, connections)  # another may have room by now

    def _share(self, turns: Turns, connections: int) -> None:
        """Listen no more for a while, where it is for others on the port to take the next."""
        server, pause_s = self._server, turns.pause_s(connections)
        if pause_s and server is not None:
            self._server = None
            server.close()
            self.loop.call_later(pause_s, self._come_back, turns)

    def _come_back(self, turns: Turns) -> None:
        if self.stopping:
            return
        if pause_s := turns.pause_s(len(self.connections)):
            self.loop.call_later(pause_s, self._come_back, turns)
        else:
            self._returning = self.loop.create_task(self._return(turns))

    async def _return(self, turns: Turns) -> None:
        assert self._shared is not None, "who shares no port always listens"
        try:
            server = await self._listening(sock=self._shared.socket())
        except OSError as error:
            _log.error("listening_failed", error=str(error))
            self.loop.call_later(FULL_S, self._come_back, turns)
            return
        if self.stopping:
            server.close()
        else:
            self._server = server

    def _sweep(self) -> None:
        now = self.loop.time()
        late_s = now - self._sweep_at
        for connection in tuple(self.connections):
            if late_s < HALT_S:
                connection.look(now)
            else:  # what has come meanwhile is read before the next look
                connection.excuse(late_s)
        self.uploads.forget_ended()
        if self._turns is not None and not self.stopping:
            self._tell(self._turns)
        self._sweep_at = now + SWEEP_S
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)


@contextlib.contextmanager
def signals(asked: Callable[[], None]) -> Iterator[None]:
    """Call `asked` at SIGTERM and SIGINT while the block runs; a no-op outside the main thread."""
    loop = asyncio.get_running_loop()
    heard = []
    for each in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(each, asked)
            heard.append(each)
    try:
        yield
    finally:
        for each in heard:
            loop.remove_signal_handler(each)
