"""Callers in masses: idle ones, silent ones, and one who sends everything ahead."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.server.limits import ServerLimits
from broker.server.listener import Listener
from broker.server.shedding import HEARD_S, IDLE_S
from tests.integration.server.test_wire import LIMIT_S, Echo, Place, Wire, post
from tests.integration.upstream.scripted import on_both_loops
from tests.waiting import until

PATIENT = ServerLimits(head_s=60.0, keep_alive_s=60.0, head_bytes_max=16_384, ahead_max=64)
IDLE = 10_000
CONNECTION_BYTES_MAX = 16_000
_PAGE_BYTES = resource.getpagesize()
_AT_ONCE = 500


@contextlib.asynccontextmanager
async def patient() -> AsyncIterator[Place]:
    echo = Echo()
    listener = Listener(echo.open, PATIENT)
    yield Place(echo, listener, await listener.start("127.0.0.1", 0))
    echo.may_go.set()
    await listener.stop(5.0)
    assert not listener.connections


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


async def _crowd(place: Place, size: int, say: bytes) -> list[socket.socket]:
    """Connections of callers who say that much and no more."""
    callers = []
    for begin in range(0, size, _AT_ONCE):
        for _ in range(min(_AT_ONCE, size - begin)):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", place.port))
            callers.append(caller)
        await until(lambda: len(place.listener.connections) == len(callers))
        if say:
            for caller in callers[begin:]:
                caller.send(say)
    return callers


async def _answered(place: Place) -> bool:
    async with place.wire() as wire:
        await wire.send(post())
        return await wire.answer() == (200, b"POST /a hello")


async def test_ten_thousand_idle_connections_take_little_and_keep_nobody_out() -> None:
    most = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2  # both ends are ours
    async with patient() as place:
        before = _resident_bytes()
        callers = await _crowd(place, min(IDLE, most), b"")
        assert await _answered(place)
        taken = _resident_bytes() - before
        assert taken / len(callers) < CONNECTION_BYTES_MAX
        for caller in callers:
            caller.close()
        await until(lambda: not place.listener.connections)


async def test_heads_that_never_end_take_no_more_than_they_may_have() -> None:
    async with patient() as place:
        before = _resident_bytes()
        begun = b"POST /a HTTP/1.1\r\nhost: x\r\nx-filler: " + b"y" * 15_000
        callers = await _crowd(place, 300, begun)
        assert await _answered(place)
        assert _resident_bytes() - before < 300 * 6 * PATIENT.head_bytes_max
        for caller in callers:
            caller.send(b"y" * 15_000)
        refused = 0
        for caller in callers:
            refused += (await _first_bytes(caller)).startswith(b"HTTP/1.1 431 ")
            caller.close()
        assert refused == len(callers)


async def _first_bytes(caller: socket.socket) -> bytes:
    async with asyncio.timeout(LIMIT_S):
        return await asyncio.get_running_loop().sock_recv(caller, 100)


async def test_who_sends_thousands_ahead_has_one_answered_and_is_let_go() -> None:
    async with patient() as place, place.wire() as wire:
        await wire.send(post("/slow", b"1"))
        await until(lambda: place.echo.served == 1)
        sending = asyncio.create_task(_send_ahead(wire))
        [connection] = place.listener.connections
        await asyncio.sleep(0.2)
        assert len(connection._ahead) <= PATIENT.ahead_max
        place.echo.may_go.set()
        status, body = await wire.answer()
        assert (status, body) == (200, b"POST /slow 1")
        await sending
    assert place.echo.served == 1


async def _send_ahead(wire: Wire) -> None:
    with contextlib.suppress(ConnectionError):
        await wire.send(post("/b", b"2") * 20_000)


async def test_who_is_idle_for_longest_makes_room_for_who_comes_and_nobody_who_is_served() -> None:
    echo = Echo()
    listener = Listener(echo.open, replace(PATIENT, connections_max=3))
    place = Place(echo, listener, await listener.start("127.0.0.1", 0))
    async with place.wire() as busy, place.wire() as longest, place.wire() as idle:
        await busy.send(post("/slow", b"1"))
        for each in (longest, idle):
            await each.send(post())
            assert (await each.answer())[0] == 200
        await asyncio.sleep(IDLE_S)
        async with place.wire() as newcomer:
            await newcomer.send(post("/slow", b"2"))
            assert await longest.rest() == b""
            await idle.send(post("/slow", b"3"))
            await until(lambda: echo.served == 5)
            async with place.wire() as refused:
                status, body = await refused.answer()
                assert (status, body) == (503, b"The broker has no room for another connection.")
                assert await refused.rest() == b""
            echo.may_go.set()
            served = [await each.answer() for each in (busy, newcomer, idle)]
            assert served == [(200, b"POST /slow %d" % number) for number in (1, 2, 3)]
    await listener.stop(5.0)


@contextlib.asynccontextmanager
async def small(connections_max: int, limits: ServerLimits = PATIENT) -> AsyncIterator[Place]:
    echo = Echo()
    listener = Listener(echo.open, replace(limits, connections_max=connections_max))
    yield Place(echo, listener, await listener.start("127.0.0.1", 0))
    echo.may_go.set()
    await listener.stop(5.0)


@on_both_loops
async def test_who_was_refused_and_stays_makes_room_though_more_was_promised() -> None:
    async with small(3) as place, place.wire() as busy, place.wire() as odd, place.wire() as late:
        await busy.send(post("/slow", b"1"))
        await odd.send(b"\0 is no request\r\n")
        assert (await odd.answer())[0] == 400
        await late.send(post("/refused", b"12345")[:-4])
        assert await late.answer() == (401, b"no")
        await asyncio.sleep(IDLE_S)
        async with place.wire() as first, place.wire() as second:
            for newcomer in (first, second):
                await newcomer.send(post("/slow", b"2"))
            await until(lambda: place.echo.served == 3)
            async with place.wire() as third:
                assert (await third.answer())[0] == 503
            place.echo.may_go.set()
            for served in (busy, first, second):
                assert (await served.answer())[0] == 200


@on_both_loops
async def test_who_had_asked_while_the_server_was_halted_makes_no_room_for_who_came_then() -> None:
    async with small(1) as place:
        with socket.create_connection(("127.0.0.1", place.port)) as raw:
            idle = Wire(*await asyncio.open_connection(sock=raw.dup()))
            await idle.send(post())
            assert (await idle.answer())[0] == 200
            await asyncio.sleep(IDLE_S)
            # Nothing is read until both are there, and who comes is seen first.
            with socket.create_connection(("127.0.0.1", place.port)) as newcomer:
                raw.send(post())
                assert await idle.answer() == (200, b"POST /a hello")
                wire = Wire(*await asyncio.open_connection(sock=newcomer.dup()))
                assert (await wire.answer())[0] == 503
                wire.writer.close()
            idle.writer.close()


@on_both_loops
async def test_who_is_turned_away_is_told_so_whatever_it_has_sent_already() -> None:
    async with small(1) as place, place.wire() as busy:
        await busy.send(post("/slow"))
        await until(lambda: place.echo.served == 1)
        for size_bytes in (1, 100_000):
            request = post(body=b"x" * size_bytes)
            newcomer = socket.create_connection(("127.0.0.1", place.port))
            newcomer.send(request[:-1])
            wire = Wire(*await asyncio.open_connection(sock=newcomer))
            await asyncio.sleep(0.05)  # who reads late finds nothing where the connection was reset
            wire.writer.write(request[-1:])
            assert (await wire.answer())[0] == 503
            wire.writer.close()
        silent = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(20)]
        for each in silent:
            wire = Wire(*each)
            assert (await wire.answer())[0] == 503
            assert await wire.rest() == b""
            wire.writer.close()
        with socket.create_connection(("127.0.0.1", place.port)) as deaf:
            await asyncio.sleep(HEARD_S + 0.3)
            deaf.settimeout(0.0)
            assert b" 503 " in deaf.recv(1_000)
            with contextlib.suppress(ConnectionError):
                deaf.send(b"?")  # a closed socket answers by a reset
            await asyncio.sleep(0.05)
            with pytest.raises(ConnectionError):  # it keeps no file for longer
                deaf.send(b"?")


@on_both_loops
async def test_who_stalls_midway_makes_room_before_who_is_idle_and_who_sends_slowly_stays() -> None:
    limits = replace(PATIENT, stalled_s=0.6, stalled_bytes=2_000)
    large = post("/slow", b"x" * 20_000)
    async with small(3, limits) as place, contextlib.AsyncExitStack() as stack:

        async def newcomer() -> Wire:
            return await stack.enter_async_context(place.wire())

        slow, stalled, idle = [await newcomer() for _ in range(3)]
        await idle.send(post())
        assert (await idle.answer())[0] == 200
        await stalled.send(large[:-2])
        early = await newcomer()
        assert (await early.answer())[0] == 503, "nobody is closed upon who sent a moment ago"
        for begin in range(0, 14_000, 1_000):
            await slow.send(large[begin : begin + 1_000])
            await asyncio.sleep(0.1)
        served = await newcomer()
        await served.send(post())
        assert (await served.answer())[0] == 200
        assert await stalled.answer() == (408, b"The request did not come in time.")
        assert await stalled.rest() == b""
        second = await newcomer()
        await second.send(post())
        assert (await second.answer())[0] == 200
        assert await idle.rest() == b""
        await slow.send(large[14_000:])
        place.echo.may_go.set()
        assert (await slow.answer())[0] == 200
        assert place.listener.room.held_bytes == 0


async def test_a_large_body_that_stalls_leaves_its_room_to_who_sends_one() -> None:
    limits = replace(PATIENT, stalled_s=0.3, bodies_bytes_max=100_000)
    large = post("/a", b"x" * 70_000)
    owned = post("/a", b"x" * 70_000, b"x-owner: me\r\n")
    async with small(9, limits) as place, contextlib.AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(place.wire()) for _ in range(3)]
        await first.send(large[:-1])
        await until(lambda: place.listener.room.held_bytes > 60_000)
        await second.send(owned[:40_000])
        await until(lambda: place.listener.room.held_bytes > 100_000)
        await asyncio.sleep(0.9)
        await third.send(large)
        assert (await third.answer())[0] == 200
        assert (await first.answer())[0] == 408
        await third.send(large)
        assert (await third.answer())[0] == 200, "there is room: nobody else has to go"
        await second.send(owned[40_000:])
        assert (await second.answer())[0] == 200
