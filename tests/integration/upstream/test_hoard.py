"""How much of large answers is kept at once, and for how long it counts."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from broker.core.outcome import Fault
from broker.upstream.client import AttemptFailed, Limits, Response, Room, request_head
from broker.upstream.hoard import FREE_BYTES
from tests.integration.upstream.scripted import (
    PATIENT,
    Handler,
    Server,
    client_of,
    on_both_loops,
    read_request,
    serving,
)
from tests.waiting import until

LARGE_BYTES = 400_000


def one_byte_short(size_bytes: int) -> Handler:
    """Send an answer but for its last byte, which comes when the connection is let go."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size_bytes)
        writer.write(b"x" * (size_bytes - 1))
        await reader.read(1)

    return handle


@on_both_loops
async def test_there_is_a_bound_on_all_answers_together_that_are_kept_whole() -> None:
    handle, counted = one_byte_short(LARGE_BYTES), LARGE_BYTES - 1 - FREE_BYTES
    limits = Limits(wholes_bytes=2 * LARGE_BYTES)
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(handle)) for _ in range(3)]
        client = await stack.enter_async_context(client_of(limits))

        def begin(server: Server) -> asyncio.Task[Response]:
            head = request_head(b"GET", b"/", server.origin.authority, [], None)
            sending = client.send(server.origin, head, b"", PATIENT, LARGE_BYTES)
            return asyncio.create_task(sending)

        calls = [begin(each) for each in servers[:2]]
        await until(lambda: client._hoard.held_bytes == 2 * counted)
        for server in (servers[0], servers[2]):  # neither of one, nor of another
            with pytest.raises(AttemptFailed) as failed:
                await begin(server)
            assert failed.value.outcome.fault is Fault.NO_ROOM
            assert not failed.value.outcome.counts_against_provider
            assert client._hoard.held_bytes == 2 * counted
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert client._hoard.held_bytes == 0


@on_both_loops
async def test_one_origin_has_half_of_the_room_for_large_answers() -> None:
    limits = Limits(wholes_bytes=LARGE_BYTES)
    async with serving(one_byte_short(LARGE_BYTES)) as server, client_of(limits) as client:
        head = request_head(b"GET", b"/", server.origin.authority, [], None)
        with pytest.raises(AttemptFailed) as failed:
            await client.send(server.origin, head, b"", PATIENT, LARGE_BYTES)
        assert failed.value.outcome.fault is Fault.NO_ROOM


@on_both_loops
async def test_a_large_answer_counts_until_nobody_holds_it_and_a_small_one_never_does() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for size_bytes in (LARGE_BYTES, FREE_BYTES):
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size_bytes)
            writer.write(b"x" * (size_bytes // 2))
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(b"x" * (size_bytes // 2))
        await reader.read(1)

    async with serving(handle) as server, client_of() as client:
        head = request_head(b"GET", b"/", server.origin.authority, [], None)
        large = await client.send(server.origin, head, b"", PATIENT, LARGE_BYTES)
        kept = large.kept
        assert len(large.take(LARGE_BYTES)) == LARGE_BYTES
        del large
        assert client._hoard.held_bytes >= LARGE_BYTES // 2 - FREE_BYTES
        del kept
        assert client._hoard.held_bytes == 0
        small = await client.send(server.origin, head, b"", PATIENT, LARGE_BYTES)
        assert small.kept is None
        assert len(small.take(LARGE_BYTES)) == FREE_BYTES


async def _all_of(response: Response) -> int:
    size_bytes = 0
    while (chunk := await response.next_chunk()) is not None:
        size_bytes += len(chunk)
    return size_bytes


@on_both_loops
async def test_what_is_passed_on_as_it_comes_takes_no_room_from_what_is_kept() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        for _ in range(20):  # how long it is to become is not told
            writer.write(b"x" * (LARGE_BYTES // 10))
            await writer.drain()
        writer.close()

    async with serving(handle) as server, client_of() as client:
        head = request_head(b"GET", b"/", server.origin.authority, [], None)
        response = await client.send(server.origin, head, b"", PATIENT, Room(LARGE_BYTES))
        assert not response.done
        assert client._hoard.held_bytes == 0
        assert await _all_of(response) == 2 * LARGE_BYTES


@on_both_loops
async def test_what_may_be_passed_on_is_where_there_is_no_room_to_keep_it() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % LARGE_BYTES)
        for _ in range(10):
            writer.write(b"x" * (LARGE_BYTES // 10))
            await writer.drain()
        await reader.read(1)

    limits = Limits(wholes_bytes=LARGE_BYTES)
    async with serving(handle) as server, client_of(limits) as client:
        head = request_head(b"GET", b"/", server.origin.authority, [], None)
        response = await client.send(server.origin, head, b"", PATIENT, Room(LARGE_BYTES))
        assert client._hoard.held_bytes == 0
        assert await _all_of(response) == LARGE_BYTES
