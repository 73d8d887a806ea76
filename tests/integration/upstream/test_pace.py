"""How fast an answer may come and be taken, and how a caller ends it."""

from __future__ import annotations

import asyncio

import pytest

from broker.core.outcome import Fault
from broker.upstream.client import AttemptFailed, Limits, Timeouts
from tests.integration.upstream.scripted import (
    OK,
    PATIENT,
    answering,
    ask,
    client_of,
    on_both_loops,
    read_request,
    serving,
)
from tests.waiting import until


@on_both_loops
async def test_nobody_taking_chunks_makes_the_provider_wait() -> None:
    sent = 0
    total = 30_000_000

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            writer.write(bytes(100_000))
            await writer.drain()
            sent += 100_000

    limits = Limits(high_water_bytes=200_000)
    timeouts = Timeouts(idle_s=0.2)
    async with serving(handle) as server, client_of(limits) as client:
        response = await ask(client, server, timeouts)
        await until(lambda: response.paused)
        before = response.buffered
        await asyncio.sleep(0.5)  # longer than idle_s: waiting for us is no silence of the provider
        assert response.buffered == before < 1_000_000
        assert sent < total
        taken = 0
        while (data := await response.next_chunk()) is not None:
            taken += len(data)
        assert taken == total


async def test_a_body_larger_than_the_high_water_mark_can_be_read_whole() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + bytes(3_000_000)
    async with answering(answer) as server, client_of(Limits(high_water_bytes=1000)) as client:
        response = await ask(client, server)
        await until(lambda: response.paused or response.done)
        assert len(await response.read()) == 3_000_000


@on_both_loops
async def test_a_stall_ends_in_the_timeout_of_its_phase() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    cases = [
        (b"", Timeouts(first_byte_s=0.05), Fault.FIRST_BYTE_TIMEOUT),
        (b"HTTP/1.1 200 OK\r\n", Timeouts(first_byte_s=0.05), Fault.FIRST_BYTE_TIMEOUT),
        (head + b"abc", Timeouts(idle_s=0.05), Fault.IDLE_TIMEOUT),
        (b"", Timeouts(total_s=0.05), Fault.TOTAL_TIMEOUT),
        (head + b"abc", Timeouts(total_s=0.05), Fault.TOTAL_TIMEOUT),
    ]
    for answer, timeouts, fault in cases:
        async with answering(answer) as server, client_of() as client:
            with pytest.raises(AttemptFailed) as failed:
                await (await ask(client, server, timeouts)).read()
            assert failed.value.outcome.fault is fault
            await until(lambda: client.connections(server.origin) == (0, 0))


@on_both_loops
async def test_a_timer_left_by_a_patient_call_does_not_excuse_an_impatient_one() -> None:
    async with answering(OK, b"") as server, client_of() as client:
        await (await ask(client, server, Timeouts(first_byte_s=60))).read()
        with pytest.raises(AttemptFailed) as failed:
            await ask(client, server, Timeouts(first_byte_s=0.05))
        assert failed.value.outcome.fault is Fault.FIRST_BYTE_TIMEOUT


@on_both_loops
async def test_a_timer_left_by_an_impatient_call_does_not_end_a_patient_one() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for pause_s in (0, 0.3):
            await read_request(reader)
            await asyncio.sleep(pause_s)
            writer.write(OK)

    async with serving(handle) as server, client_of() as client:
        await (await ask(client, server, Timeouts(first_byte_s=0.15))).read()
        assert await (await ask(client, server, PATIENT)).read() == b"ok"
        assert server.connections == 1


@on_both_loops
async def test_a_trickle_is_no_silence_until_the_total_is_over() -> None:
    framing, piece = b"transfer-encoding: chunked", b"1\r\nx\r\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        while not writer.is_closing():  # uvloop raises what is no ConnectionError
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server, Timeouts(idle_s=0.25, total_s=0.6))
        with pytest.raises(AttemptFailed) as failed:
            await response.read()
        assert failed.value.outcome.fault is Fault.TOTAL_TIMEOUT
        # But what has a length was ready before it was sent: single bytes of it are as good as none
        framing, piece = b"content-length: 99999", b"x"
        response = await ask(client, server, Timeouts(idle_s=0.25, total_s=20))
        with pytest.raises(AttemptFailed) as failed:
            await response.read()
        assert failed.value.outcome.fault is Fault.IDLE_TIMEOUT


@on_both_loops
async def test_aborting_closes_the_connection_at_once() -> None:
    gone = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        try:
            await reader.read()
        finally:
            gone.set()

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        response.abort()
        await gone.wait()
        with pytest.raises(AttemptFailed) as failed:
            await response.read()
        assert failed.value.outcome.fault is Fault.CALLER_LEFT


@on_both_loops
async def test_a_caller_who_leaves_before_the_head_cancels_the_call_upstream() -> None:
    gone = asyncio.Event()
    asked = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        try:
            await reader.read()
        finally:
            gone.set()

    async with serving(handle) as server, client_of() as client:
        call = asyncio.create_task(ask(client, server))
        await asked.wait()
        call.cancel()
        await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


@on_both_loops
async def test_a_cancelled_wait_for_a_chunk_loses_nothing() -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        await go_on.wait()
        writer.write(b"ok")
        await reader.read()

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.next_chunk(), 0.02)
        go_on.set()
        assert await response.next_chunk() == b"ok"
