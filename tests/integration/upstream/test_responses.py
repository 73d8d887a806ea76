"""What the client makes of answers, whole and broken."""

from __future__ import annotations

import asyncio

import pytest

from broker.core.outcome import Fault
from broker.upstream.client import AttemptFailed, Limits, request_head
from broker.upstream.framing import HEADERS_MAX
from tests.integration.upstream.scripted import (
    BODY,
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

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Trailer: unseen\r\n\r\n"
)

SIZED = b"HTTP/1.1 200 OK\r\ncontent-length: %b\r\n\r\nhello"
CODED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: %b\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
CHUNK = CODED.replace(b"\r\n5\r\n", b"\r\n%b\r\n") % (b"chunked", b"%b")


async def fault_of(answer: bytes, *, close: bool = True, limits: Limits | None = None) -> Fault:
    """Return the fault that an answer ends in, at its head or in its body."""
    async with answering(answer, close=close) as server, client_of(limits) as client:
        with pytest.raises(AttemptFailed) as failed:
            await (await ask(client, server)).read()
        await until(lambda: client.connections(server.origin) == (0, 0))
        assert failed.value.outcome.fault is not None
        assert failed.value.outcome.sent
        return failed.value.outcome.fault


@on_both_loops
async def test_a_sized_answer_is_read_and_its_connection_is_used_again() -> None:
    async with answering(OK, OK) as server, client_of() as client:
        for _ in range(2):
            response = await ask(client, server)
            assert response.status == 200
            assert response.header(b"content-length") == b"2"
            assert await response.read() == b"ok"
        assert server.connections == 1
        assert client.connections(server.origin) == (0, 1)
        assert server.requests[0] == (
            b"POST /v1/x HTTP/1.1\r\nhost: %b\r\nx-a: b\r\ncontent-length: %d\r\n\r\n%b"
            % (server.origin.authority, len(BODY), BODY)
        )


@on_both_loops
async def test_an_answer_split_at_every_byte_is_the_same_answer() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for cut in range(1, len(CHUNKED)):
            await read_request(reader)
            writer.write(CHUNKED[:cut])
            await writer.drain()
            await asyncio.sleep(0.001)
            writer.write(CHUNKED[cut:])

    async with serving(handle) as server, client_of() as client:
        for _ in range(1, len(CHUNKED)):
            response = await ask(client, server)
            assert await response.read() == b"hello world"
            assert response.headers == [
                (b"content-type", b"text/event-stream"),
                (b"transfer-encoding", b"chunked"),
            ]
        assert server.connections == 1


@on_both_loops
async def test_an_answer_of_single_bytes_is_the_same_answer() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in CHUNKED:
            writer.write(bytes([byte]))
            await writer.drain()
        await reader.read()

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        taken = b""
        while (data := await response.next_chunk()) is not None:
            assert data
            taken += data
        assert taken == b"hello world"
        assert client.connections(server.origin) == (0, 1)


@on_both_loops
async def test_chunks_that_arrived_together_are_handed_out_together() -> None:
    async with answering(CHUNKED) as server, client_of() as client:
        response = await ask(client, server)
        await until(lambda: response.done)
        assert await response.next_chunk() == b"hello world"
        assert await response.next_chunk() is None
        assert await response.next_chunk() is None


@on_both_loops
async def test_the_whole_body_can_be_asked_for_with_the_head() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for body in (b"ok", b"too long"):
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            await writer.drain()
            await asyncio.sleep(0.01)
            writer.write(body)

    async with serving(handle) as server, client_of() as client:
        head = request_head(b"POST", b"/", server.origin.authority, [], len(BODY))
        response = await client.send(server.origin, head, BODY, PATIENT, whole_bytes=2)
        assert response.done
        assert await response.read() == b"ok"
        with pytest.raises(AttemptFailed) as failed:
            await client.send(server.origin, head, BODY, PATIENT, whole_bytes=2)
        assert failed.value.outcome.fault is Fault.TOO_LARGE


@on_both_loops
async def test_informational_answers_are_skipped() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    async with answering(early + OK) as server, client_of() as client:
        response = await ask(client, server)
        assert response.status == 200
        assert response.headers == [(b"content-length", b"2")]
        assert await response.read() == b"ok"


@on_both_loops
async def test_answers_without_a_body_end_at_their_head() -> None:
    no_content = b"HTTP/1.1 204 No Content\r\n\r\n"
    not_modified = b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"
    async with answering(no_content, not_modified, OK) as server, client_of() as client:
        for status in (204, 304, 200):
            response = await ask(client, server)
            assert response.status == status
            assert await response.read() == (b"ok" if status == 200 else b"")
        assert server.connections == 1


@on_both_loops
async def test_a_head_request_gets_no_body_whatever_length_is_announced() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"
    async with answering(answer, OK) as server, client_of() as client:
        response = await ask(client, server, method=b"HEAD")
        assert response.header(b"content-length") == b"99"
        assert await response.read() == b""
        assert (await ask(client, server)).status == 200


@on_both_loops
async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    async with answering(answer, close=True) as server, client_of() as client:
        response = await ask(client, server)
        assert await response.read() == b"all of it"
        await until(lambda: client.connections(server.origin) == (0, 0))


@on_both_loops
async def test_redirects_are_not_followed() -> None:
    answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with answering(answer) as server, client_of() as client:
        response = await ask(client, server)
        assert response.status == 302
        assert await response.read() == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nok",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
        b"HTTP/1.1 200 OK\r\nx: a\r\n folded\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nhello",
        CODED % b"gzip, chunked",
        CODED % b"chunked, chunked",
        CODED % b"chunked\r\ntransfer-encoding: chunked",
        CODED % b"gzip\r\ntransfer-encoding: chunked",
        CODED % b"chunked;q=1",
        CODED % b"xchunked",
        CODED % b"",
        SIZED % b"5, 5",
        SIZED % b"5\r\ncontent-length: 5",
        SIZED % b"5 5",
        SIZED % b"+5",
        SIZED % b"0x5",
        SIZED % b"",
        SIZED % b"\r\n 5",
        SIZED % b"5\r\n\tx",
        SIZED % b"5\nx: y",
        SIZED % b"5\rx: y",
        SIZED % b"5\r\nx\t: y",
        SIZED % b"5\r\n: y",
        SIZED % b"5\r\nx: a\0b",
        b"HTTP/0.9 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/2.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 20 OK\r\ncontent-length: 5\r\n\r\nhello",
        b"<html>hello</html>",
        CHUNK % b"0x5",
        CHUNK % b"+5",
        CHUNK % b" 5",
        CHUNK % b"5 ",
        CHUNK % b"-1",
        CHUNK % b"",
        CHUNK % b"10000000000000005",
        CHUNK % b"5;a\nb",
        CHUNK % b"4",
        CHUNK % b"5\r\nhello\r\n0\r\ncontent-length: 9\r\n\r\n",
        CHUNK % b"5\r\nhello\r\n0\r\nx: y\r\n folded\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\ncontent-length: 5\r\n\r\nhello" + OK,
        b"HTTP/1.1 101 Switching\r\n\r\n" + OK,
        b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ],
)
async def test_bytes_that_are_not_strict_http_are_malformed(answer: bytes) -> None:
    assert await fault_of(answer) is Fault.MALFORMED


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ],
)
async def test_an_answer_that_ends_before_its_end_is_a_reset(answer: bytes) -> None:
    assert await fault_of(answer) is Fault.RESET


async def test_giant_heads_are_too_large_in_every_shape() -> None:
    limits = Limits(head_bytes=2000)
    start = b"HTTP/1.1 200 OK\r\n"
    whole = start + b"x: y\r\n" * 500 + b"content-length: 0\r\n\r\n"
    for answer in (
        whole,
        start + b"x: y\r\n" * (HEADERS_MAX + 2),
        start + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"x: y\r\n" * (HEADERS_MAX + 2),
        start + b"x" * 3000,
        start + b"x: " + b"y" * 3000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 200,
        start + b"transfer-encoding: chunked\r\n\r\n5;" + b"e" * 600_000,
        start + b"transfer-encoding: chunked\r\n\r\n0\r\nt: " + b"e" * 600_000,
    ):
        assert await fault_of(answer, close=False, limits=limits) is Fault.TOO_LARGE


@on_both_loops
async def test_a_body_in_tiny_chunks_takes_little_more_room_than_it_has_bytes() -> None:
    """A piece of two bytes once took fifty-six."""
    chunks = b"2\r\nxy\r\n" * 100_000

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
        await go_on.wait()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    go_on = asyncio.Event()
    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        await until(lambda: response.buffered == 200_000)
        assert len(response.chunks) <= 200_000 // 64 + 256
        go_on.set()
        assert await response.read() == b"xy" * 100_000


async def test_small_heads_in_two_pieces_are_no_giant_one_together() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(OK[:30])
            await asyncio.sleep(0.002)
            writer.write(OK[30:])

    async with serving(handle) as server, client_of(Limits(head_bytes=200)) as client:
        for _ in range(10):
            assert await (await ask(client, server)).read() == b"ok"
        assert server.connections == 1


async def test_a_small_head_with_a_large_body_in_one_packet_is_no_giant_head() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"y" * 5000
    async with answering(answer) as server, client_of(Limits(head_bytes=2000)) as client:
        assert len(await (await ask(client, server)).read()) == 5000


@pytest.mark.parametrize("framing", [b"content-length: 5000\r\n\r\n", b"\r\n"])
async def test_a_body_over_the_limit_is_too_large(framing: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + framing + b"y" * 5000
    limits = Limits(body_bytes=4999, idle_s=0.05)
    assert await fault_of(answer, close=False, limits=limits) is Fault.TOO_LARGE


async def test_a_limit_holds_for_a_body_that_is_already_there() -> None:
    async with answering(OK) as server, client_of() as client:
        response = await ask(client, server)
        await until(lambda: response.done)
        with pytest.raises(AttemptFailed) as failed:
            await response.read(1)
        assert failed.value.outcome.fault is Fault.TOO_LARGE


@on_both_loops
async def test_a_body_that_is_said_to_be_over_the_limit_is_refused_before_it_comes() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n12"
    async with answering(answer) as server, client_of() as client:
        head = request_head(b"GET", b"/", server.origin.authority, [], None)
        with pytest.raises(AttemptFailed) as failed:
            await client.send(server.origin, head, b"", PATIENT, 50)
    assert failed.value.outcome.fault is Fault.TOO_LARGE


@on_both_loops
async def test_what_came_before_a_failure_is_handed_out_before_it() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.transport.abort()

    async with serving(handle) as server, client_of() as client:
        response = await ask(client, server)
        await until(lambda: response.failure is not None)
        assert await response.next_chunk() == b"half"
        with pytest.raises(AttemptFailed) as failed:
            await response.next_chunk()
        outcome = failed.value.outcome
        assert (outcome.fault, outcome.status, outcome.sent) == (Fault.RESET, 200, True)


@on_both_loops
async def test_an_early_answer_is_taken_and_the_half_sent_body_ends_the_connection() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        await until(lambda: client.connections(server.origin) == (0, 0))

    async with serving(handle) as server, client_of() as client:
        body = [bytes(1_000_000)] * 40
        head = request_head(b"POST", b"/", server.origin.authority, [], 40_000_000)
        response = await client.send(server.origin, head, body, PATIENT)
        assert response.status == 413
        assert await response.read() == b"no"
        assert client.connections(server.origin)[1] == 0


@on_both_loops
async def test_a_large_body_in_pieces_arrives_as_it_is() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            server.requests.append(await read_request(reader))
            writer.write(OK)

    pieces = [bytes([number]) * 70_001 for number in range(20)]
    async with serving(handle) as server, client_of() as client:
        head = request_head(b"POST", b"/", server.origin.authority, [], 20 * 70_001)
        for body in (pieces, b"".join(pieces)):
            await (await client.send(server.origin, head, body, PATIENT)).read()
        for request in server.requests:
            assert request.partition(b"\r\n\r\n")[2] == b"".join(pieces)
        assert server.connections == 1
