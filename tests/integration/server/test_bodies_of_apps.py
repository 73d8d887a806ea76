"""Large bodies for an app that is bridged: few enough that its memory has room for all of them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from broker.errors import Unavailable
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
