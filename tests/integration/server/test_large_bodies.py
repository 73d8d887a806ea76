"""Large bodies are read into blocks of memory, in place, and the blocks serve the next bodies."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import re
from collections.abc import AsyncIterator

import pytest

from broker.server.blocks import BLOCK_BYTES, Blocks
from broker.server.connection import Connection
from broker.server.limits import ServerLimits
from broker.server.request import Handler, Request
from broker.server.room import Room
from broker.server.uploads import Uploads
from tests.fuzzed import Wire, hear

LARGE = random.Random(3).randbytes(600_000)
OTHER = random.Random(4).randbytes(600_000)
_HEAD = b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


class Server:
    """What connections need of a server; it notes each body, and keeps views if it is told to."""

    def __init__(self) -> None:
        self.limits = ServerLimits()
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.stopping = False
        self.scratch = memoryview(bytearray(4_096))
        self.blocks = Blocks()
        self.room = Room()
        self.uploads = Uploads(self.limits, self.loop.time)
        self.bodies: list[bytes] = []
        self.opened: list[tuple[str, str, bytes | None]] = []
        self.copied_bytes: list[int] = []
        self.lent: set[int] = set()
        self.keeps = False
        self.refuses = False
        self.kept: list[memoryview] = []

    def open(self, request: Request) -> tuple[Handler, bool]:
        if self.refuses:
            return self._refuse, False
        told = request.header(b"authorization") or request.header(b"content-length")
        self.opened.append((request.method, request.path, told))
        request.in_pieces = request.path == "/large"
        return self._serve, True

    async def _serve(self, request: Request) -> None:
        if request.trouble is not None:
            request.answer(request.trouble.status, b"", b"trouble")
            return
        self.bodies.append(b"".join((request.body, *request.rest)))
        self.copied_bytes.append(len(request.body))
        self.lent.update(id(piece.obj) for piece in request.rest)
        if self.keeps:
            self.kept.extend(request.rest)
        request.answer(200, b"", b"fine")

    async def _refuse(self, request: Request) -> None:
        request.answer(401, b"", b"no")


class Caller:
    """One connection of a server, and what it was answered."""

    def __init__(self, server: Server) -> None:
        self.wire = Wire()
        self.connection = Connection(server)
        self.connection.connection_made(self.wire)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            hear(self.connection, piece)
            for _ in range(5):
                await asyncio.sleep(0)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    for connection in tuple(server.connections):
        connection.connection_lost(None)
    await asyncio.sleep(0)


def request(body: bytes) -> bytes:
    return _HEAD % len(body) + body


async def test_a_large_body_is_not_copied_but_for_its_begin(server: Server) -> None:
    caller = Caller(server)
    await caller.send(request(LARGE), request(OTHER))
    assert server.bodies == [LARGE, OTHER]
    assert all(size <= 2**16 + len(server.scratch) for size in server.copied_bytes)


async def test_heads_alone_take_no_memory_and_shut_nobody_out(server: Server) -> None:
    server.limits = ServerLimits(bodies_bytes_max=2**20)
    head = request(LARGE)[: -len(LARGE)]
    known = Caller(server)
    await known.send(request(LARGE))
    blocks = len(server.blocks)
    callers = [known, *(Caller(server) for _ in range(20))]
    for caller in callers:
        await caller.send(head)
    assert (server.room.held_bytes, len(server.blocks)) == (0, blocks)
    await Caller(server).send(b"POST /small HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
    assert server.bodies == [LARGE, b"{}"]
    for caller in callers[:2]:
        await caller.send(OTHER)
    assert server.bodies == [LARGE, b"{}", OTHER, OTHER]


async def test_what_is_read_in_place_ends_at_the_bound_too(server: Server) -> None:
    server.limits = ServerLimits(bodies_bytes_max=2**20)
    callers = [Caller(server) for _ in range(6)]
    sent = request(LARGE)
    for caller in callers:
        await caller.send(sent[:100])
    most_bytes = 0
    for begin in range(100, len(sent) - 1, 4_096):
        for caller in callers:
            hear(caller.connection, sent[begin : min(begin + 4_096, len(sent) - 1)])
        most_bytes = max(most_bytes, server.room.held_bytes)
    assert most_bytes <= 2 * 2**20
    for caller in callers:
        await caller.send(sent[-1:])
    assert sorted({bytes(caller.wire.sent[9:12]) for caller in callers}) == [b"200", b"503"]
    assert server.room.held_bytes == 0


@pytest.mark.parametrize("piece_bytes", [100, 1_500, 4_096])
async def test_memory_is_counted_in_proportion_to_what_has_come(
    server: Server, piece_bytes: int
) -> None:
    caller = Caller(server)
    sent = request(LARGE)
    for begin in range(0, len(sent) - piece_bytes, piece_bytes):
        hear(caller.connection, sent[begin : begin + piece_bytes])
        come = begin + piece_bytes
        assert come - 100 <= server.room.held_bytes <= (come if come < 2**16 else 5 * come + 100)
    await caller.send(sent[come:])
    assert (server.bodies, server.room.held_bytes) == ([LARGE], 0)


async def test_a_large_body_behind_a_wish_to_upgrade_comes_whole_and_ends(server: Server) -> None:
    caller = Caller(server)
    offer = b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length:"
    await caller.send(request(LARGE).replace(b"content-length:", offer, 1), request(OTHER))
    assert server.bodies == [LARGE, OTHER]
    assert server.room.held_bytes == 0


async def test_the_blocks_of_one_body_serve_the_next(server: Server) -> None:
    caller = Caller(server)
    for body in (LARGE, OTHER, LARGE[:200_000], OTHER):
        await caller.send(request(body))
    assert server.bodies == [LARGE, OTHER, LARGE[:200_000], OTHER]
    assert len(server.lent) == len(server.blocks) == -(-len(LARGE) // BLOCK_BYTES)


async def test_a_block_that_is_still_looked_at_serves_nobody_else(server: Server) -> None:
    caller = Caller(server)
    server.keeps = True
    await caller.send(request(LARGE))
    assert len(server.blocks) == 0
    await caller.send(request(OTHER))
    kept = b"".join(server.kept)
    assert kept == LARGE[server.copied_bytes[0] :] + OTHER[server.copied_bytes[1] :]


@pytest.mark.parametrize("cut", [1, 30, 57, 4_000, 70_000, 262_144, 599_999])
async def test_wherever_it_is_cut_it_comes_whole_and_so_does_what_follows(
    server: Server, cut: int
) -> None:
    caller = Caller(server)
    sent = request(LARGE) + request(OTHER) + b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n"
    await caller.send(sent[:cut], sent[cut:-cut], sent[-cut:])
    assert server.bodies == [LARGE, OTHER, b""]
    assert caller.wire.sent.count(b"HTTP/1.1 200 OK") == 3
    assert server.room.held_bytes == 0


async def test_a_body_that_does_not_come_is_forgotten_and_answered(server: Server) -> None:
    caller = Caller(server)
    await caller.send(request(LARGE)[:400_000])
    assert server.room.held_bytes >= 390_000
    caller.connection.look(server.loop.time() + server.limits.body_s + 1)
    await caller.send(LARGE[-100_000:])
    assert caller.wire.sent.startswith(b"HTTP/1.1 408")
    assert (server.bodies, server.room.held_bytes) == ([], 0)


async def test_who_leaves_in_the_middle_leaves_nothing_behind(server: Server) -> None:
    caller = Caller(server)
    await caller.send(request(LARGE), request(LARGE)[:400_000])
    assert server.room.held_bytes >= 390_000
    caller.connection.connection_lost(None)
    assert server.room.held_bytes == 0


async def test_who_leaves_before_it_is_served_leaves_no_body_to_the_garbage_collector(
    server: Server,
) -> None:
    caller = Caller(server)
    gc.collect()
    gc.disable()
    others = _requests([])
    try:
        for begin in range(0, len(sent := request(LARGE)), 4_000):
            hear(caller.connection, sent[begin : begin + 4_000])
        assert len(_requests(others)) == 1
        caller.connection.connection_lost(None)
        await caller.send(b"")
        assert not _requests(others)
    finally:
        gc.enable()
    assert (server.bodies, server.room.held_bytes) == ([], 0)


def _requests(others: list[Request]) -> list[Request]:
    """Return the requests that there are, but for these, which servers of other tests keep."""
    known = {*map(id, others)}
    return [each for each in gc.get_objects() if type(each) is Request and id(each) not in known]


async def test_who_is_refused_at_a_head_that_is_known_is_refused_once(server: Server) -> None:
    caller = Caller(server)
    await caller.send(request(LARGE))
    server.refuses = True
    await caller.send(request(OTHER))
    server.refuses = False
    await caller.send(request(OTHER))
    assert server.bodies == [LARGE, OTHER]
    assert re.findall(rb"HTTP/1.1 (\d+)", caller.wire.sent) == [b"200", b"401", b"200"]


_SMALL = b"GET /small HTTP/1.1\r\nhost: x\r\nauthorization: Bearer one\r\n\r\n"
_OFFER = b"GET /small HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"


@pytest.mark.parametrize("before", [_SMALL, _OFFER, b"\r\n\r\n", b"\r\n"])
@pytest.mark.parametrize("cuts", [(), (10,), (57,), (200,)])
async def test_what_was_sent_before_a_large_request_is_not_taken_for_it_afterwards(
    server: Server, before: bytes, cuts: tuple[int, ...]
) -> None:
    first = before + request(LARGE)
    edges = (0, *cuts, len(first))
    caller = Caller(server)
    await caller.send(*(first[a:b] for a, b in itertools.pairwise(edges)), before, request(OTHER))
    small, large = [("GET", "/small")] * (b"GET" in before), [("POST", "/large")]
    assert [each[:2] for each in server.opened] == [*small, *large, *small, *large]
    assert [body for body in server.bodies if body] == [LARGE, OTHER]
    assert server.room.held_bytes == 0


async def test_a_head_that_came_in_two_parts_is_not_remembered_by_its_tail(server: Server) -> None:
    caller = Caller(server)
    head = b"POST /large HTTP/1.1\r\nauthorization: Bearer one\r\ncontent-length: 600000\r\n\r\n"
    tail = b"content-length: 600000\r\n\r\n"
    await caller.send(head[: -len(tail)], tail + LARGE, tail)
    assert server.opened == [("POST", "/large", b"Bearer one")]
    assert server.bodies == [LARGE]
    assert caller.wire.sent.endswith(b"This is not a request that HTTP/1.1 knows.")
