"""What comes of a stream in quick succession is handed on together, and nothing waits in vain."""

from __future__ import annotations

import asyncio

from tests.integration.upstream.scripted import (
    ask,
    client_of,
    on_both_loops,
    read_request,
    serving,
    until,
)

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NEVER_S = 3_600.0


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@on_both_loops
async def test_pieces_that_follow_soon_come_together_and_the_end_does_not_wait() -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD)
        await go_on.wait()
        for data in (framed(b"a"), framed(b"b"), framed(b"c"), b"0\r\n\r\n"):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        response.gathers_s = NEVER_S
        go_on.set()
        pieces = []
        while (piece := await response.next_chunk()) is not None:
            pieces.append(piece)
        assert b"".join(pieces) == b"abc"
        assert pieces[-1].endswith(b"bc")  # or all, where the machine was busy
        assert response.done


@on_both_loops
async def test_a_piece_that_nothing_follows_is_handed_on_all_the_same() -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + framed(b"a"))
        await begun.wait()
        writer.write(framed(b"b"))
        await told.wait()
        writer.write(framed(b"c") + b"0\r\n\r\n")

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        response.gathers_s = 0.05
        assert await response.next_chunk() == b"a"
        begun.set()
        assert await response.next_chunk() == b"b"
        told.set()
        assert await response.next_chunk() == b"c"
        assert await response.next_chunk() is None


@on_both_loops
async def test_what_was_taken_before_its_time_leaves_no_end_behind() -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(HEAD + framed(b"a"))
        await begun.wait()
        writer.write(framed(b"b"))
        await told.wait()
        writer.write(framed(b"c") + b"0\r\n\r\n")

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        response.gathers_s = 0.2
        assert await response.next_chunk() == b"a"
        waiting = asyncio.create_task(response.next_chunk())
        begun.set()
        await until(lambda: response.gathering or waiting.done())
        waiting.cancel()
        await asyncio.wait([waiting])
        if waiting.cancelled():
            assert await response.next_chunk() == b"b"
        following = asyncio.create_task(response.next_chunk())
        await until(lambda: not response.gathering)
        assert not following.done()  # woken for nothing, it would take this for the end
        told.set()
        assert await following == b"c"
        assert await response.next_chunk() is None
