"""How long nothing was heard of a server: not while it answers, over whichever connections."""

from __future__ import annotations

import asyncio

from broker.core.health.stalls import SEVERAL
from broker.upstream.client import Limits, Origin, UpstreamClient, request_head
from broker.upstream.silence import Silence
from tests.integration.upstream.scripted import OK, PATIENT, client_of, on_both_loops, serving
from tests.waiting import until


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer at once, but for the path `/stuck`."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        size = int(head.rsplit(b"content-length: ", 1)[1].split(b"\r\n")[0])
        await reader.readexactly(size)
        if b"/stuck" in head:
            await reader.read()
            return
        writer.write(OK)


async def ask(client: UpstreamClient, origin: Origin, path: bytes, size: int = 2) -> None:
    head = request_head(b"POST", path, origin.authority, [], size)
    await (await client.send(origin, head, b"x" * size, PATIENT)).read()


def silence(client: UpstreamClient) -> Silence:
    [(_, found)] = client.silences(SEVERAL)
    return found


@on_both_loops
async def test_a_server_that_answers_over_full_connections_is_not_silent() -> None:
    limits = Limits(connections_per_origin=SEVERAL + 1)
    async with serving(handle) as server, client_of(limits=limits) as client:
        origin = server.origin
        stuck = [asyncio.create_task(ask(client, origin, b"/stuck")) for _ in range(SEVERAL)]
        await until(lambda: client.connections(origin)[0] == SEVERAL)
        answered = 0

        async def caller() -> None:
            nonlocal answered
            while True:
                await ask(client, origin, b"/fine")
                answered += 1

        callers = [asyncio.create_task(caller()) for _ in range(2)]  # one of them always waits
        await until(lambda: answered > 20)
        begun = asyncio.get_running_loop().time()
        seen = answered
        await until(lambda: answered > seen + 20)
        found = silence(client)
        assert found.heard_ago_s <= asyncio.get_running_loop().time() - begun
        assert sum(each > found.heard_ago_s for each in found.short_s) >= SEVERAL
        for each in (*stuck, *callers):
            each.cancel()
        await asyncio.gather(*stuck, *callers, return_exceptions=True)


@on_both_loops
async def test_a_server_that_was_just_found_has_not_been_silent_for_ever() -> None:
    begun = asyncio.get_running_loop().time()
    async with serving(handle) as server, client_of() as client:
        origin = server.origin
        stuck = [asyncio.create_task(ask(client, origin, b"/stuck")) for _ in range(SEVERAL)]
        await until(lambda: client.connections(origin)[0] == SEVERAL)
        assert silence(client).heard_ago_s <= asyncio.get_running_loop().time() - begun
        for each in stuck:
            each.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


@on_both_loops
async def test_long_requests_and_whole_answers_tell_nothing_of_a_silence() -> None:
    async with serving(handle) as server, client_of() as client:
        origin = server.origin
        head = request_head(b"POST", b"/stuck", origin.authority, [], 2)
        stuck = [
            asyncio.create_task(ask(client, origin, b"/stuck", 20_000)),
            asyncio.create_task(client.send(origin, head, b"{}", PATIENT, 1_000)),
            asyncio.create_task(ask(client, origin, b"/stuck")),
        ]
        await until(lambda: client.connections(origin)[0] == SEVERAL)
        found = silence(client)
        assert (len(found.short_s), found.others) == (1, 2)
        for each in stuck:
            each.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)
