"""Several listeners on one port: none turns callers away, nor takes all of them, while others have
room."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from broker.server.listener import BACKLOG, Listener
from broker.server.sharing import Board, Shared
from tests.integration.server.test_floods import PATIENT
from tests.integration.server.test_wire import LIMIT_S, Echo, Wire, post
from tests.integration.upstream.scripted import on_both_loops
from tests.waiting import until


@dataclass
class Stand:
    """Two listeners on one port."""

    echo: Echo
    listeners: list[Listener]
    port: int
    wires: contextlib.AsyncExitStack

    async def newcomer(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.callback(wire.writer.close)
        return wire

    async def answered(self, status: int) -> bool:
        """Whether a newcomer is answered so."""
        wire = await self.newcomer()
        await wire.send(post())
        return (await wire.answer())[0] == status

    def both_listen(self) -> bool:
        return all(each._server is not None for each in self.listeners)

    def taken(self) -> int:
        return sum(len(each.connections) for each in self.listeners)


@contextlib.asynccontextmanager
async def two(connections_max: int) -> AsyncIterator[Stand]:
    """Two listeners on one port, each with room for so many."""
    echo, limits = Echo(), replace(PATIENT, connections_max=connections_max)
    with (
        TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening,
    ):
        path = Path(folder) / "board"
        Board.lay_out(path, 2)
        listeners = [Listener(echo.open, limits) for _ in range(2)]
        for number, each in enumerate(listeners):
            port = await each.start("", 0, Shared(listening, Board(path, number)))
        try:
            async with contextlib.AsyncExitStack() as wires:
                yield Stand(echo, listeners, port, wires)
        finally:
            echo.may_go.set()
            for each in listeners:
                await each.stop(LIMIT_S)


@on_both_loops
async def test_nobody_is_turned_away_while_another_on_the_port_has_room() -> None:
    async with two(5) as stand:
        for number in range(1, 11):
            wire = await stand.newcomer()
            await wire.send(post("/slow"))
            await until(lambda n=number: stand.echo.served == n)
        assert [len(each.connections) for each in stand.listeners] == [5, 5]
        assert await stand.answered(503)
        for each, other in (stand.listeners, stand.listeners[::-1]):
            await until(stand.both_listen)
            next(iter(each.connections)).abort()
            await until(lambda other=other: other._server is None)
            assert await stand.answered(200)


@on_both_loops
async def test_who_is_full_takes_callers_again_when_the_other_stops() -> None:
    async with two(2) as stand:
        for number in range(1, 4):
            await stand.newcomer()
            await until(lambda n=number: stand.taken() == n)
        full, other = sorted(stand.listeners, key=lambda each: -len(each.connections))
        assert full._server is None
        await other.stop(0.0)
        assert await stand.answered(503)


@on_both_loops
async def test_callers_who_come_one_after_the_other_are_shared_evenly() -> None:
    async with two(1_000) as stand:
        for number in range(1, 41):
            await stand.newcomer()
            await until(lambda n=number: stand.taken() == n)
        assert min(len(each.connections) for each in stand.listeners) >= 16
