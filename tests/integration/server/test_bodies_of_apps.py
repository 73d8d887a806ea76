"""Large bodies for an app that is bridged: few enough that its memory has room for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx

from broker.errors import Unavailable
from broker.server.limits import ServerLimits
from tests.integration.server.test_wire import Wire, post
from tests.integration.serving import serving

LARGE = b"x" * 300_000
ROOM = 400_000


class Reader:
    """An app that reads a body whole, and keeps what is large until it is told to answer."""

    def __init__(self) -> None:
        self.has_read = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, _: Any, receive: Any, send: Any) -> None:
        status, size, more = 200, 0, True
        try:
            while more:
                message = await receive()
                size += len(message["body"])
                more = message["more_body"]
        except Unavailable as error:
            status = error.status
        else:
            if size > len(LARGE) // 2:
                self.has_read.set()
                await self.may_answer.wait()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def test_large_bodies_without_room_are_refused_while_others_are_in_hand() -> None:
    reader = Reader()
    async with serving(reader, ROOM) as origin, httpx.AsyncClient(base_url=origin) as client:
        first = asyncio.create_task(client.post("/", content=LARGE))
        await reader.has_read.wait()
        assert (await client.post("/", content=LARGE)).status_code == 503
        assert (await client.post("/", content=b"x" * 50_000)).status_code == 200
        reader.may_answer.set()
        assert (await first).status_code == 200
        assert (await client.post("/", content=LARGE)).status_code == 200, "there is room again"


async def test_who_leaves_with_a_large_body_leaves_its_room_once_the_app_is_done() -> None:
    reader = Reader()
    async with serving(reader, ROOM) as origin:
        async with httpx.AsyncClient(base_url=origin) as leaving:
            asking = asyncio.create_task(leaving.post("/", content=LARGE))
            await reader.has_read.wait()
            asking.cancel()
            await asyncio.wait([asking])
        async with httpx.AsyncClient(base_url=origin) as client:
            assert (await client.post("/", content=LARGE)).status_code == 503
            reader.may_answer.set()
            assert (await client.post("/", content=LARGE)).status_code == 200


async def test_who_stalls_midway_in_a_large_body_leaves_its_room_to_who_sends_one() -> None:
    limits = ServerLimits(stalled_s=0.6, stalled_bytes=20_000)
    request, reader = post("/", LARGE[:200_000]), Reader()
    async with serving(reader, ROOM, limits) as origin, contextlib.AsyncExitStack() as stack:
        port = int(origin.rpartition(":")[2])

        async def newcomer() -> Wire:
            wire = Wire(*await asyncio.open_connection("127.0.0.1", port))
            stack.callback(wire.writer.close)
            return wire

        stalled, slow, last = [await newcomer() for _ in range(3)]
        await stalled.send(request[:140_000])
        for begin in range(0, 140_000, 10_000):
            await slow.send(request[begin : begin + 10_000])
            await asyncio.sleep(0.08)
        await last.send(post("/", LARGE[:140_000]))
        assert b" 200 " in await last.reader.readuntil(b"\r\n\r\n")
        assert (await stalled.answer())[0] == 408
        assert await stalled.rest() == b""
        reader.may_answer.set()
        await slow.send(request[140_000:])
        assert b" 200 " in await slow.reader.readuntil(b"\r\n\r\n")
