"""The server on a real socket, spoken to byte by byte by callers of every kind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from broker.server.connection import Connection
from broker.server.head_checks import HEADERS_MAX
from broker.server.limits import ServerLimits
from broker.server.listener import Listener
from broker.server.reader import Reader
from broker.server.request import Handler, Request
from tests.waiting import until

LIMITS = ServerLimits(
    head_bytes_max=4_096,
    head_s=0.6,
    body_bytes_max=100_000,
    body_s=0.6,
    bodies_bytes_max=150_000,
    discarded_bytes_max=200_000,
    keep_alive_s=0.6,
)
LIMIT_S = 10.0


@dataclass
class Echo:
    """Answers with the method, the path and the body; `/slow` waits, `/refused` wants no body,
    `/large` has an answer that is kept until its caller has it, `/headers` tells their names."""

    may_go: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: int = 0
    served: int = 0

    def open(self, request: Request) -> tuple[Handler, bool]:
        if request.path == "/refused":
            return self._refuse, False
        request.owner = request.header(b"x-owner")
        return self._echo, True

    async def _echo(self, request: Request) -> None:
        self.served += 1
        if request.trouble is not None:
            request.answer(request.trouble.status, b"", request.trouble.detail.encode())
            return
        try:
            if request.path == "/slow":
                await self.may_go.wait()
            if request.path == "/broken":
                request.begin(200, b"")
                request.write(b"half")
                raise RuntimeError("it broke")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if request.path == "/large":
            if request.query:
                request.take_within(float(request.query))
            request.answer(200, b"", bytes(16 * 2**20))
            await request.drain()
            return
        if request.path == "/headers":
            request.answer(200, b"", b" ".join(name for name, _ in request.headers))
            return
        told = f"{request.method} {request.path} ".encode()
        request.answer(200, b"content-type: text/plain\r\n", told + request.body)

    async def _refuse(self, request: Request) -> None:
        request.answer(401, b"", b"no")


@dataclass
class Place:
    """The server under test, and connections to it."""

    echo: Echo
    listener: Listener
    port: int

    @contextlib.asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        yield Wire(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@dataclass
class Wire:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        async with asyncio.timeout(LIMIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head.split()[1])
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return status, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(LIMIT_S):
            return await self.reader.read()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    echo = Echo()
    listener = Listener(echo.open, LIMITS)
    port = await listener.start("127.0.0.1", 0)
    yield Place(echo, listener, port)
    echo.may_go.set()
    await listener.stop(2.0)
    assert listener.room.held_bytes == 0
    assert not listener.connections


def post(path: str = "/a", body: bytes = b"hello", more: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n"
    return head % (path.encode(), more, len(body)) + body


async def _send_on(wire: Wire) -> None:
    for _ in range(1_000):
        await wire.send(b"x" * 10_000)


async def test_one_connection_carries_many_requests(place: Place) -> None:
    async with place.wire() as wire:
        for n in range(3):
            await wire.send(post(f"/{n}"))
            assert await wire.answer() == (200, b"POST /%d hello" % n)


async def test_requests_sent_ahead_are_answered_in_their_order(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(post("/slow", b"1") + post("/b", b"2") + post("/c", b"3"))
        await until(lambda: place.echo.served == 1)
        await asyncio.sleep(0.05)
        assert place.echo.served == 1
        place.echo.may_go.set()
        answers = [(await wire.answer())[1] for _ in range(3)]
    assert answers == [b"POST /slow 1", b"POST /b 2", b"POST /c 3"]


async def test_a_head_that_is_too_large_is_refused_in_one_piece_or_in_many(place: Place) -> None:
    large = b"GET /a HTTP/1.1\r\nhost: x\r\n" + b"x-filler: %b\r\n" % (b"y" * 500) * 9
    for pieces in ([large + b"\r\n"], [large[at : at + 300] for at in range(0, len(large), 300)]):
        async with place.wire() as wire:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    await wire.send(piece)
            assert (await wire.rest()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /a HTTP/1.1\r\nhost: x\r\nhost: y\r\ncontent-length: 0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: x\r\n" + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n",
        b"GET /a HTTP/1.1\nhost: x\n\n",
        b"GET /a HTTP/1.1\r\nhost: x\r\nx: 1\r\n folded\r\n\r\n",
        b"GET /a HTTP/1.1\r\nhost: x\r\nx : 1\r\n\r\n",
        b"GET /a HTTP/2.0\r\nhost: x\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /a\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
async def test_what_two_readers_could_read_in_two_ways_is_refused(
    place: Place, head: bytes
) -> None:
    async with place.wire() as wire:
        await wire.send(head)
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")


async def test_nothing_sent_after_a_broken_request_is_served(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(post("/a", b"1") + b"NONSENSE\r\n\r\n" + post("/b", b"2"))
        assert (await wire.answer())[1] == b"POST /a 1"
        assert b"POST /b" not in await wire.rest()
    assert place.echo.served == 1


async def test_a_head_that_trickles_is_let_go(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(b"POST /a HTTP/1.1\r\nhos")
        assert (await wire.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_on_which_nothing_is_asked_is_closed(place: Place) -> None:
    async with place.wire() as wire:
        assert await wire.rest() == b""
    async with place.wire() as wire:
        await wire.send(post())
        await wire.answer()
        assert await wire.rest() == b""


async def test_a_body_that_does_not_come_is_answered_without_it(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(post()[:-2])
        assert (await wire.answer())[0] == 408
        assert await wire.rest() == b""


async def test_a_body_may_be_refused_before_it_comes_and_the_connection_goes_on(
    place: Place,
) -> None:
    async with place.wire() as wire:
        request = post("/refused", b"x" * 50_000)
        await wire.send(request[:100])
        assert await wire.answer() == (401, b"no")
        await wire.send(request[100:] + post("/next"))
        assert await wire.answer() == (200, b"POST /next hello")


async def test_who_sends_without_end_after_a_refusal_is_cut_off(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(post("/a", b"x" * 100_001)[:5_000])
        assert (await wire.answer())[0] == 413
        with pytest.raises(ConnectionError):
            await _send_on(wire)


CHUNKED = b"POST /headers HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


async def test_what_trails_a_body_is_no_header(place: Place) -> None:
    """Who refuses a second Host, or goes by a key, looks at the head, and handlers at headers."""
    async with place.wire() as wire:
        for trailers in (b"", b"x-sneaked: 1\r\nhost: y\r\n"):
            await wire.send(CHUNKED + b"2\r\nab\r\n0\r\n" + trailers + b"\r\n")
            assert await wire.answer() == (200, b"host transfer-encoding")


@pytest.mark.parametrize(
    "flood", [b"x: y\r\n" * 1_000, b"x: " + b"y" * 10_000, b"1;" + b"e" * 10_000]
)
async def test_what_trails_a_body_without_end_is_cut_off(place: Place, flood: bytes) -> None:
    """Trailers once took twenty times the memory that they have bytes, however many came."""
    async with place.wire() as wire:
        await wire.send(CHUNKED + b"2\r\nab\r\n" + (b"0\r\n" if flood[:1] == b"x" else b""))
        await until(lambda: place.listener.room.held_bytes == 2)
        with contextlib.suppress(ConnectionError):
            await wire.send(flood)
        assert (await wire.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_head_of_very_many_headers_is_refused(place: Place) -> None:
    async with place.wire() as wire:
        with contextlib.suppress(ConnectionError):
            await wire.send(b"GET /a HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * (HEADERS_MAX + 2))
        assert (await wire.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_body_in_tiny_chunks_takes_little_more_room_than_it_has_bytes(place: Place) -> None:
    """A piece of two bytes once took fifty-six, uncounted."""
    async with place.wire() as wire:
        await wire.send(CHUNKED.replace(b"/headers", b"/a") + b"2\r\nxy\r\n" * 20_000)
        await until(lambda: place.listener.room.held_bytes == 40_000)
        [connection] = place.listener.connections
        request = connection._reader.request
        assert request is not None
        assert len(request.chunks) <= 40_000 // 64 + 256
        await wire.send(b"0\r\n\r\n")
        assert await wire.answer() == (200, b"POST /a " + b"xy" * 20_000)


async def test_a_body_without_a_length_that_grows_beyond_the_limit_is_refused(place: Place) -> None:
    chunk = b"3e8\r\n" + b"x" * 1_000 + b"\r\n"
    for chunks, status in ((100, 200), (101, 413)):
        async with place.wire() as wire:
            await wire.send(CHUNKED.replace(b"/headers", b"/a") + chunk * chunks + b"0\r\n\r\n")
            assert (await wire.answer())[0] == status


async def test_a_body_in_small_pieces_may_be_larger_than_a_head(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(CHUNKED.replace(b"/headers", b"/a"))
        for number in range(1, 8):
            await wire.send(b"3e8\r\n" + b"x" * 1_000 + b"\r\n")
            await until(lambda so_many=number: place.listener.room.held_bytes == 1_000 * so_many)
        await wire.send(b"0\r\n\r\n")
        assert await wire.answer() == (200, b"POST /a " + b"x" * 7_000)


async def test_requests_behind_the_end_of_a_body_are_no_trailers(place: Place) -> None:
    behind = post("/b", b"x" * 900) * 20
    async with place.wire() as wire:
        await wire.send(CHUNKED + b"2\r\nab\r\n")
        await until(lambda: place.listener.room.held_bytes == 2)
        await wire.send(b"0\r\n\r\n" + behind)
        for status in [200] * 21:
            assert (await wire.answer())[0] == status


async def test_there_is_a_bound_on_all_bodies_together(place: Place) -> None:
    request = post("/a", b"x" * 90_000)
    async with place.wire() as first, place.wire() as second, place.wire() as third:
        await first.send(request[:-1])
        await second.send(request[:-1])
        await until(lambda: place.listener.room.held_bytes > LIMITS.bodies_bytes_max)
        await third.send(request)
        assert (await third.answer())[0] == 503
        await first.send(request[-1:])
        assert (await first.answer())[0] == 200


@pytest.mark.parametrize("known", [False, True])
async def test_no_account_takes_the_room_of_all_others(place: Place, known: bool) -> None:
    large, greedy, other = bytes(70_000), b"x-owner: greedy\r\n", b"x-owner: other\r\n"
    async with contextlib.AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(place.wire()) for _ in range(3)]
        await first.send(post("/slow", large, greedy))
        await until(lambda: place.echo.served == 1)
        if known:  # its head is that of the one before, and is not parsed again
            await second.send(post("/a", b"", greedy))
            await second.answer()
        await second.send(post("/a", large, greedy))
        status, said = await second.answer()
        assert (status, b"Your account" in said) == (429, True)
        await third.send(post("/a", large, other))
        assert (await third.answer())[0] == 200
        place.echo.may_go.set()
        assert (await first.answer())[0] == 200
        async with place.wire() as again:
            await again.send(post("/a", large, greedy))
            assert (await again.answer())[0] == 200


async def test_heads_that_came_first_are_no_way_around_the_bound(place: Place) -> None:
    request = post("/a", bytes(90_000))
    async with contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(place.wire()) for _ in range(8)]
        for wire in wires:
            await wire.send(request[:100])
        await asyncio.sleep(0.05)
        most_bytes = 0
        for wire in wires:
            await wire.send(request[100:-1])
            await asyncio.sleep(0.02)
            most_bytes = max(most_bytes, place.listener.room.held_bytes)
        assert LIMITS.bodies_bytes_max < most_bytes <= 2 * LIMITS.bodies_bytes_max
        for wire in wires:
            await wire.send(request[-1:])
        answers = [(await wire.answer())[0] for wire in wires]
    assert answers.count(200) >= 2
    assert sorted(set(answers)) == [200, 503]


async def test_large_bodies_count_until_they_are_answered_and_shut_no_small_one_out(
    place: Place,
) -> None:
    large = bytes(90_000)
    async with contextlib.AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(place.wire()) for _ in range(3)]
        for wire in (first, second):
            await wire.send(post("/slow", large))
        await until(lambda: place.echo.served == 2)
        await third.send(post("/c", large))
        assert (await third.answer())[0] == 503
        async with place.wire() as small:
            await small.send(post("/c"))
            assert await small.answer() == (200, b"POST /c hello")
        first.writer.transport.abort()
        await until(lambda: place.echo.cancelled == 1)
        place.echo.may_go.set()
        assert (await second.answer())[0] == 200
        assert place.listener.room.held_bytes == 0
        async with place.wire() as wire:
            await wire.send(post("/c", large))
            assert (await wire.answer())[0] == 200


async def test_a_large_body_that_came_whole_behind_a_known_head_counts_as_well(
    place: Place,
) -> None:
    async with place.wire() as wire:
        for _ in range(2):
            await wire.send(post("/slow", bytes(70_000)))
            await until(lambda: place.echo.served > 0)
            place.echo.served = 0
            assert place.listener.room.held_bytes >= 70_000
            place.echo.may_go.set()
            assert (await wire.answer())[0] == 200
            place.echo.may_go.clear()
            assert place.listener.room.held_bytes == 0


async def test_a_caller_who_leaves_stops_what_is_done_for_it(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(post("/slow"))
        await until(lambda: place.echo.served == 1)
        wire.writer.transport.abort()
        await until(lambda: place.echo.cancelled == 1)


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(post("/broken"))
        said = await wire.rest()
    assert said.endswith(b"4\r\nhalf\r\n")


async def test_an_offer_of_another_protocol_is_passed_over(place: Place) -> None:
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    async with place.wire() as wire:
        await wire.send(post("/a", b"hello", offer)[:-2])
        await asyncio.sleep(0.01)
        await wire.send(b"lo" + post("/b"))
        assert await wire.answer() == (200, b"POST /a hello")
        assert await wire.answer() == (200, b"POST /b hello")


async def test_a_client_that_waits_to_be_told_to_continue_is_told_unless_it_is_refused(
    place: Place,
) -> None:
    async with place.wire() as wire:
        request = post("/a", b"hello", b"expect: 100-continue\r\n")
        await wire.send(request[:-5])
        async with asyncio.timeout(LIMIT_S):
            assert await wire.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(b"hello")
        assert (await wire.answer())[0] == 200
        await wire.send(post("/a", b"x" * 100_001, b"expect: 100-continue\r\n")[:120])
        assert (await wire.answer())[0] == 413
    async with place.wire() as wire:
        await wire.send(post("/refused", b"hello", b"expect: 100-continue\r\n")[:-5])
        assert await wire.answer() == (401, b"no"), "and nothing before it"
        assert await wire.rest() == b"", "what follows could be the body or another request"


async def test_head_has_the_length_and_no_body(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n" + post("/b"))
        async with asyncio.timeout(LIMIT_S):
            head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 8\r\n" in head
        assert (await wire.answer())[1] == b"POST /b hello"


async def test_a_server_that_stops_ends_what_it_has_begun(place: Place) -> None:
    async with place.wire() as busy, place.wire() as idle:
        await busy.send(post("/slow"))
        await until(lambda: place.echo.served == 1)
        stopping = asyncio.create_task(place.listener.stop(LIMIT_S))
        assert await idle.rest() == b""
        place.echo.may_go.set()
        assert (await busy.answer())[0] == 200
        assert await busy.rest() == b""
        await stopping
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", place.port)


@pytest.mark.parametrize("taken", [False, True])
async def test_a_server_that_stops_answers_who_has_just_come_in(place: Place, taken: bool) -> None:
    """Whether or not it has taken the connection, of which it has read nothing."""
    with socket.create_connection(("127.0.0.1", place.port)) as caller:
        if taken:
            await until(lambda: len(place.listener.connections) == 1)
        caller.sendall(post())
        await place.listener.stop(LIMIT_S)
        assert caller.recv(1_000).endswith(b"POST /a hello")
        assert caller.recv(1_000) == b""


async def test_a_server_that_stops_waits_a_moment_for_what_a_newcomer_is_about_to_say(
    place: Place,
) -> None:
    async with place.wire() as wire, place.wire() as silent:
        await until(lambda: len(place.listener.connections) == 2)
        stopping = asyncio.create_task(place.listener.stop(LIMIT_S))
        await asyncio.sleep(0)
        await wire.send(post())
        assert await wire.answer() == (200, b"POST /a hello")
        assert await silent.rest() == b""
        await stopping


async def test_heads_alike_but_for_their_length_are_each_served_with_their_own_body(
    place: Place,
) -> None:
    async with place.wire() as wire:
        for body in (b"one", b"another one", b"x" * 12_345, b"", b"last"):
            head = b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % len(body)
            await wire.send(head)
            await wire.send(body)
            assert await wire.answer() == (200, b"POST /a " + body)
            await wire.send(head + body)
            assert await wire.answer() == (200, b"POST /a " + body)


async def test_a_head_that_is_known_is_no_way_around_the_parser(place: Place) -> None:
    plain = b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"
    chunked = (
        b"POST /b HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
    )
    async with place.wire() as wire:
        for data, told in ((plain, b"POST /a abc"), (chunked, b"POST /b xyz")) * 3:
            await wire.send(data)
            assert await wire.answer() == (200, told)
        await wire.send(plain + plain.replace(b"abc", b"def"))
        assert await wire.answer() == (200, b"POST /a abc")
        assert await wire.answer() == (200, b"POST /a def")
        await wire.send(plain.replace(b"content-length: 3\r\n", b"content-length: 3\r\n" * 2))
        assert (await wire.answer())[0] == 400


async def test_a_known_head_may_announce_no_body_beyond_the_limit(place: Place) -> None:
    async with place.wire() as wire:
        await wire.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc")
        assert await wire.answer() == (200, b"POST /a abc")
        size = LIMITS.body_bytes_max + 1
        await wire.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size)
        assert (await wire.answer())[0] == 413


async def test_a_caller_who_is_refused_at_the_head_is_never_taken_for_the_one_before(
    place: Place,
) -> None:
    served = b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\n"
    refused = served.replace(b"/a", b"/refused")
    async with place.wire() as wire:
        await wire.send(served)
        await asyncio.sleep(0.05)  # so that the body comes by itself; no harm if it does not
        await wire.send(b"abc")
        assert await wire.answer() == (200, b"POST /a abc")
        for _ in range(3):
            await wire.send(refused + b"abc")
            assert (await wire.answer())[0] == 401


async def test_requests_sent_ahead_are_the_same_wherever_their_bytes_are_cut(place: Place) -> None:
    known = b"POST /k HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"
    within = b"POST /x HTTP/1.1\r\nhost: h\r\nfoo: bar\r\ncontent-length: 3\r\n\r\nxyz"
    both = known + within
    for at in range(1, len(both)):
        async with place.wire() as wire:
            await wire.send(known)
            assert await wire.answer() == (200, b"POST /k abc")
            await wire.send(both[:at])
            if at >= len(known):
                assert await wire.answer() == (200, b"POST /k abc")
            await wire.send(both[at:])
            if at < len(known):
                assert await wire.answer() == (200, b"POST /k abc")
            assert await wire.answer() == (200, b"POST /x xyz")


async def test_a_known_head_within_another_head_is_no_request(place: Place) -> None:
    known = b"POST /k HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"
    async with place.wire() as wire:
        for path in (b"/1", b"/2", b"/k"):
            await wire.send(known.replace(b"/k", path))
            assert await wire.answer() == (200, b"POST %b abc" % path)
        await wire.send(known + b"POST /x HTTP/1.1\r\nfoo: ")
        assert await wire.answer() == (200, b"POST /k abc")
        await wire.send(known)
        assert await wire.answer() == (200, b"POST /x abc")
        assert place.echo.served == 5


async def test_who_sends_ahead_and_takes_no_answer_is_let_go(place: Place) -> None:
    async with place.wire() as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(post("/large") + post("/b"))
        await until(lambda: place.echo.served == 1)
        await until(lambda: not place.listener.connections)


@pytest.mark.parametrize("more", [b"", b"connection: close\r\n"])
async def test_who_takes_a_large_answer_has_as_long_for_it_as_was_said(
    place: Place, more: bytes
) -> None:
    now = asyncio.get_running_loop().time()
    async with place.wire() as wire:
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await wire.send(post("/large?100", more=more))
        await until(lambda: place.echo.served == 1)
        [connection] = place.listener.connections
        for later_s in (20.0, 40.0, 99.0):
            connection.look(now + later_s)
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await wire.answer() == (200, bytes(16 * 2**20))


async def test_an_idle_connection_keeps_no_body(place: Place) -> None:
    size = 50_000
    async with place.wire() as wire:
        await wire.send(b"POST /a HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size)
        await wire.send(b"x" * size)
        assert len((await wire.answer())[1]) == size + len("POST /a ")
        gc.collect()
        kept = [each for each in gc.get_objects() if isinstance(each, Request)]
        assert [each for each in kept if len(each.body) == size] == []


@pytest.mark.parametrize("begun", [False, True])
async def test_a_connection_that_has_ended_does_not_wait_for_the_garbage_collector(
    place: Place, *, begun: bool
) -> None:
    gc.collect()
    before = set(map(id, _connections()))  # of tests before this one that somebody holds still
    gc.disable()
    try:
        for _ in range(3):
            async with place.wire() as wire:
                await wire.send(post())
                assert await wire.answer() == (200, b"POST /a hello")
                assert set(map(id, _connections())) - before, "one that is open is found"
                if begun:
                    await wire.send(post()[:20])
        async with asyncio.timeout(LIMIT_S):
            while place.listener.connections:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)
        assert not [each for each in _connections() if id(each) not in before]
    finally:
        gc.enable()


def _connections() -> list[Connection | Reader]:
    return [each for each in gc.get_objects() if isinstance(each, (Connection, Reader))]
