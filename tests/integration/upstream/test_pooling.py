"""How connections are kept, dropped, limited, dialled again, and closed."""

from __future__ import annotations

import asyncio
import socket
import struct
from itertools import product

import pytest

from broker.core.outcome import Fault
from broker.upstream.client import (
    AttemptFailed,
    Limits,
    Origin,
    Timeouts,
    UpstreamClient,
    request_head,
)
from broker.upstream.connection import Connection
from tests.integration.upstream.scripted import (
    BODY,
    LOOPBACK,
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


class Closer:
    """Answers one request on each connection, and closes the first at a word."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.setblocking(False)
        self.requests: list[bytes] = []
        self.open: list[socket.socket] = []
        self.first: socket.socket | None = None
        self.origin = Origin("http", "127.0.0.1", self.listening.getsockname()[1])

    async def serve(self) -> None:
        """Serve one connection after the other, each for one request."""
        loop = asyncio.get_running_loop()
        while True:
            accepted, _ = await loop.sock_accept(self.listening)
            self.requests.append(await loop.sock_recv(accepted, 10_000))
            await loop.sock_sendall(accepted, OK)
            self.first = self.first or accepted
            self.open.append(accepted)

    def close(self) -> None:
        for each in (self.listening, *self.open):
            each.close()

    async def ask(self, client: UpstreamClient) -> bytes:
        head = request_head(b"POST", b"/", self.origin.authority, [], 2)
        return await (await client.send(self.origin, head, b"{}", PATIENT)).read()


@on_both_loops
async def test_a_request_that_met_a_closed_connection_is_sent_once_more() -> None:
    closer = Closer()
    serving_all = asyncio.create_task(closer.serve())
    async with client_of() as client:
        assert await closer.ask(client) == b"ok"
        assert closer.first is not None
        closer.first.close()  # in the very moment in which it is used again
        assert await closer.ask(client) == b"ok"
        assert len(closer.requests) == 2
    serving_all.cancel()
    await asyncio.gather(serving_all, return_exceptions=True)
    closer.close()


@on_both_loops
async def test_a_request_that_was_read_on_a_used_connection_is_not_sent_again() -> None:
    async with answering(OK, b"", close=True) as server, client_of() as client:
        assert await (await ask(client, server)).read() == b"ok"
        with pytest.raises(AttemptFailed) as failed:
            await ask(client, server)
        assert failed.value.outcome.fault is Fault.RESET
        assert failed.value.outcome.sent
        assert (server.connections, len(server.requests)) == (1, 2)


@on_both_loops
async def test_a_request_that_was_read_before_a_reset_is_not_sent_again() -> None:
    for size, delay_s in product((2, 20_000), (0.0, 0.005, 0.02)):
        read = 0

        async def handle(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            size: int = size,
            delay_s: float = delay_s,
        ) -> None:
            nonlocal read
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(size)
                read += 1
                if read == 2:
                    await asyncio.sleep(delay_s)  # at work on it; not yet acknowledged
                    no_wait = struct.pack("ii", 1, 0)
                    accepted = writer.get_extra_info("socket")
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_wait)
                    writer.transport.abort()
                    return
                writer.write(OK)

        async with serving(handle) as server, client_of() as client:
            head = request_head(b"POST", b"/", server.origin.authority, [], size)
            response = await client.send(server.origin, head, b"x" * size, PATIENT)
            assert await response.read() == b"ok"
            with pytest.raises(AttemptFailed) as failed:
                await client.send(server.origin, head, b"x" * size, PATIENT)
            assert failed.value.outcome.fault is Fault.RESET
            assert failed.value.outcome.sent
            assert (server.connections, read) == (1, 2)


@on_both_loops
async def test_a_fresh_connection_that_dies_is_not_replaced() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with serving(handle) as server, client_of() as client:
        with pytest.raises(AttemptFailed) as failed:
            await ask(client, server)
        assert failed.value.outcome.fault is Fault.RESET
        assert failed.value.outcome.sent
        assert server.connections == 1


@on_both_loops
async def test_a_used_connection_that_dies_after_a_byte_of_the_answer_is_not_replaced() -> None:
    async with answering(OK, b"H", close=True) as server, client_of() as client:
        await (await ask(client, server)).read()
        with pytest.raises(AttemptFailed) as failed:
            await ask(client, server)
        assert failed.value.outcome.fault is Fault.RESET
        assert server.connections == 1


@on_both_loops
async def test_a_used_connection_that_stalls_is_not_replaced() -> None:
    async with answering(OK, b"") as server, client_of() as client:
        await (await ask(client, server)).read()
        with pytest.raises(AttemptFailed) as failed:
            await ask(client, server, Timeouts(first_byte_s=0.05))
        assert failed.value.outcome.fault is Fault.FIRST_BYTE_TIMEOUT
        assert server.connections == 1


@on_both_loops
async def test_a_connection_closed_by_the_provider_leaves_the_pool() -> None:
    async with answering(OK, close=True) as server, client_of() as client:
        await (await ask(client, server)).read()
        await until(lambda: client.connections(server.origin) == (0, 0))


@on_both_loops
async def test_connections_that_said_close_are_not_kept() -> None:
    for answer in (
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ):
        async with answering(answer) as server, client_of() as client:
            assert await (await ask(client, server)).read() == b"ok"
            assert client.connections(server.origin)[1] == 0


@on_both_loops
async def test_a_request_that_asked_to_close_is_the_last_on_its_connection() -> None:
    async with answering(OK) as server, client_of() as client:
        headers = [(b"Connection", b"close")]
        head = request_head(b"POST", b"/", server.origin.authority, headers, len(BODY))
        response = await client.send(server.origin, head, BODY, PATIENT)
        assert await response.read() == b"ok"
        assert client.connections(server.origin)[1] == 0


@on_both_loops
async def test_bytes_nobody_asked_for_end_an_idle_connection() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        await until(lambda: client.connections(server.origin) == (0, 1))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison")
        await reader.read()

    async with serving(handle) as server, client_of() as client:
        assert await (await ask(client, server)).read() == b"ok"
        await until(lambda: client.connections(server.origin) == (0, 0))


@on_both_loops
async def test_bytes_behind_an_answer_are_not_taken_for_the_next_one() -> None:
    for surplus in (b"H", b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", b"\0junk"):
        async with answering(OK + surplus) as server, client_of() as client:
            assert await (await ask(client, server)).read() == b"ok"
            assert client.connections(server.origin)[1] == 0


@on_both_loops
async def test_idle_connections_are_dropped_after_their_time() -> None:
    limits = Limits(idle_s=0.1)
    async with answering(OK, OK) as server, client_of(limits) as client:
        first, second = await asyncio.gather(ask(client, server), ask(client, server))
        await first.read()
        await second.read()
        assert client.connections(server.origin) == (0, 2)
        await until(lambda: client.connections(server.origin) == (0, 0))


@on_both_loops
async def test_an_origin_that_nobody_calls_any_more_is_forgotten() -> None:
    limits = Limits(idle_s=0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused
        dead = Origin("http", "127.0.0.1", taken.getsockname()[1])
        async with answering(OK, OK) as server, client_of(limits) as client:
            await (await ask(client, server)).read()
            with pytest.raises(AttemptFailed):
                await client.send(dead, b"", b"", PATIENT)
            assert set(client._pools) == {server.origin, dead}
            await until(lambda: not client._pools)
            assert (await ask(client, server)).status == 200, "and called again it is known anew"


@on_both_loops
async def test_an_origin_is_not_forgotten_while_it_has_calls_or_answers_that_count() -> None:
    large = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + bytes(3_000_000)
    limits = Limits(idle_s=0.05)
    async with answering(large, close=True) as server, client_of(limits) as client:
        head = request_head(b"POST", b"/", server.origin.authority, [], len(BODY))
        kept = await client.send(server.origin, head, BODY, PATIENT, 4_000_000)
        async with answering(b"") as silent:
            call = asyncio.create_task(ask(client, silent))
            await until(lambda: len(silent.requests) == 1)
            assert client.kept_bytes > 0
            await asyncio.sleep(0.3)
            assert set(client._pools) == {server.origin, silent.origin}
            del kept
            await until(lambda: set(client._pools) == {silent.origin})
            call.cancel()
            await until(lambda: not client._pools)


@on_both_loops
async def test_the_connection_used_last_is_used_next() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = b"%d" % server.connections
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + name)

    async with serving(handle) as server, client_of() as client:
        answers = await asyncio.gather(*(ask(client, server) for _ in range(3)))
        names = [await answer.read() for answer in answers]
        assert sorted(names) == [b"1", b"2", b"3"]
        picks = [await (await ask(client, server)).read() for _ in range(3)]
        assert len(set(picks)) == 1


@on_both_loops
async def test_calls_over_the_connection_limit_wait_their_turn() -> None:
    busy = peak = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, peak
        while True:
            request = await read_request(reader)
            server.requests.append(request)
            busy += 1
            peak = max(peak, busy)
            await asyncio.sleep(0.002)
            busy -= 1
            closing = b"connection: close\r\n" if len(server.requests) % 3 == 0 else b""
            writer.write(b"HTTP/1.1 200 OK\r\n%bcontent-length: 2\r\n\r\nok" % closing)

    limits = Limits(connections_per_origin=3)
    async with serving(handle) as server, client_of(limits) as client:

        async def call() -> bytes:
            return await (await ask(client, server)).read()

        assert await asyncio.gather(*(call() for _ in range(40))) == [b"ok"] * 40
        assert peak <= 3
        assert client.connections(server.origin)[0] == 0


@on_both_loops
async def test_a_turn_that_does_not_come_in_time_is_an_overload() -> None:
    limits = Limits(connections_per_origin=1, waiting_per_origin=1)
    async with answering(b"") as server, client_of(limits) as client:
        first = asyncio.create_task(ask(client, server))
        await until(lambda: len(server.requests) == 1)
        second = asyncio.create_task(ask(client, server, Timeouts(connect_s=0.05)))
        await asyncio.sleep(0)
        for call in (ask(client, server), second):  # no room to wait in, and too long a wait
            with pytest.raises(AttemptFailed) as failed:
                await call
            assert failed.value.outcome.fault is Fault.OVERLOADED
            assert not failed.value.outcome.sent
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await until(lambda: client.connections(server.origin) == (0, 0))


@on_both_loops
async def test_a_caller_who_leaves_the_queue_takes_no_slot_along() -> None:
    async with answering(OK, OK) as server, client_of(Limits(connections_per_origin=1)) as client:
        held = await ask(client, server)
        waiting = asyncio.create_task(ask(client, server))
        await asyncio.sleep(0)
        waiting.cancel()
        await held.read()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await (await ask(client, server)).read() == b"ok"


@on_both_loops
async def test_a_caller_who_leaves_as_his_turn_comes_gives_it_back() -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    async with answering(half, OK) as server, client_of(Limits(connections_per_origin=1)) as client:
        held = await ask(client, server)
        waiting = asyncio.create_task(ask(client, server))
        await asyncio.sleep(0)
        connection = held.carrier
        assert isinstance(connection, Connection)
        connection.data_received(b"ok")  # the turn comes ...
        waiting.cancel()  # ... and in the same step of the loop the caller leaves
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client.connections(server.origin) == (0, 1)
        assert await (await ask(client, server)).read() == b"ok"
        assert server.connections == 1


@on_both_loops
async def test_a_connection_idle_for_too_long_is_not_taken_even_before_it_is_reaped() -> None:
    async with answering(OK) as server, client_of() as client:
        await (await ask(client, server)).read()
        pool = client._pools[server.origin]
        assert pool.take(pool.loop.time() + 5) is None
        await until(lambda: client.connections(server.origin) == (0, 0))


@on_both_loops
async def test_closing_the_client_ends_every_call() -> None:
    limits = Limits(connections_per_origin=1)
    async with answering(b"") as server:
        client = UpstreamClient(LOOPBACK, limits)
        calls = [asyncio.create_task(ask(client, server)) for _ in range(3)]
        await until(lambda: len(server.requests) == 1)
        await client.aclose()
        for call in calls:
            with pytest.raises(AttemptFailed):
                await call
        assert client.connections(server.origin) == (0, 0)


@on_both_loops
async def test_answers_whose_heads_are_alike_keep_their_own_bodies_and_lengths() -> None:
    date = b"HTTP/1.1 200 OK\r\ndate: %d\r\nContent-Length: %d\r\n\r\n%b"
    told = [(1, b"one"), (1, b"another"), (1, b""), (2, b"later"), (2, b"x" * 30_000)]
    failing = b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\nno"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for at, body in told:
            await read_request(reader)
            writer.write(date % (at, len(body), body))
        await read_request(reader)
        writer.write(failing)
        await read_request(reader)
        writer.write(date % (2, 9, b"surplus") + OK)

    async with serving(handle) as server, client_of() as client:
        for _, body in told:
            answer = await ask(client, server)
            assert answer.status == 200
            assert answer.header(b"content-length") == b"%d" % len(body)
            assert await answer.read() == body
        answer = await ask(client, server)
        assert (answer.status, await answer.read()) == (500, b"no")
        assert await (await ask(client, server)).read() == b"surplusHT"
        assert server.connections == 1
