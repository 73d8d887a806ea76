"""How long a connection waits for its caller: without a network, by a clock of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.server.blocks import Blocks
from broker.server.connection import Connection
from broker.server.limits import ServerLimits
from broker.server.reader import SCRATCH_BYTES
from broker.server.request import Handler, Request
from broker.server.room import Room
from broker.server.uploads import Uploads
from tests.unit.server.test_shedding import Clock

LIMITS = ServerLimits(
    head_s=20.0, body_s=120.0, keep_alive_s=75.0, discarded_bytes_max=1_000, ahead_max=3
)
LINGERS_S = 10.0
SOON_S = 0.01


class Timed:
    """The running loop, but for its time."""

    def __init__(self, clock: Clock) -> None:
        self.time = clock
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


class Line(asyncio.Transport):
    """The transport: keeps what is written, and what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.waiting_bytes = 0
        self.reads = True
        self.closing = self.aborted = self.eof = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.written += b"".join(list_of_data)

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def get_write_buffer_size(self) -> int:
        return self.waiting_bytes


@dataclass
class Place:
    """A server of one connection: `/slow` and `/app` wait, `/after` does once it has answered, and
    `/pieces` heeds what its caller takes; `/refused` wants no body and `/app` reads it as it comes;
    `/broken` breaks off and `/cancelled` once it has answered; others are answered at once."""

    clock: Clock = field(default_factory=Clock)
    limits: ServerLimits = LIMITS
    stopping: bool = False
    scratch: memoryview = field(default_factory=lambda: memoryview(bytearray(SCRATCH_BYTES)))
    blocks: Blocks = field(default_factory=Blocks)
    room: Room = field(default_factory=Room)
    connections: set[Connection] = field(default_factory=set)
    may_go: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    served: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    """What was served to its end."""
    line: Line = field(default_factory=Line)

    def __post_init__(self) -> None:
        self.loop: Any = Timed(self.clock)
        self.uploads = Uploads(self.limits, self.clock)
        self.connection = Connection(self)
        self.connection.connection_made(self.line)

    def open(self, request: Request) -> tuple[Handler, bool]:
        return self._serve, request.path not in ("/refused", "/app")

    async def _serve(self, request: Request) -> None:
        self.served.append(request.path)
        await self._answer(request)
        self.ended.append(request.path)

    async def _answer(self, request: Request) -> None:
        if request.path == "/broken":
            raise RuntimeError("it broke")
        if request.path in ("/slow", "/app"):
            await self.may_go.acquire()
        if request.query:
            request.take_within(float(request.query))
        if request.path == "/pieces":
            request.begin(200, b"")
            for _ in range(3):
                request.write(b"piece")
                await request.drain()
            request.end()
            return
        status = 200 if request.trouble is None else request.trouble.status
        request.answer(status, b"", request.path.encode())
        if request.path == "/after":
            await self.may_go.acquire()
        if request.path == "/cancelled":
            raise asyncio.CancelledError

    async def says(self, data: bytes) -> None:
        """Have the caller send so much, and what it wants done."""
        while data:
            room = self.connection.get_buffer(-1)
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            self.connection.buffer_updated(taken)
            data = data[taken:]
        await self.goes_on()

    async def goes_on(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def passes(self, seconds: float) -> None:
        """Let so much time pass, with a look at the end of it."""
        self.clock.now_s += seconds
        self.connection.look(self.clock.now_s)
        await self.goes_on()

    def answers(self) -> list[int]:
        """The status of each answer so far."""
        return [int(each) for each in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.line.written)]


def post(target: str = "/a", body: bytes = b"hello") -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
    return head % (target.encode(), len(body)) + body


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    with capture_logs() as logs:
        yield place
    assert logs == [], "nothing went wrong"
    if place.connection in place.connections:
        place.connection.connection_lost(None)
    await place.goes_on()


async def test_who_connects_has_as_long_as_a_head_to_say_something(place: Place) -> None:
    await place.passes(LIMITS.head_s - SOON_S)
    assert not place.line.closing
    await place.passes(SOON_S)
    assert (place.line.closing, place.line.written) == (True, b"")


async def test_a_head_has_its_time_from_its_first_byte_whatever_comes_after(place: Place) -> None:
    await place.passes(LIMITS.head_s - SOON_S)
    await place.says(post()[:10])
    await place.passes(LIMITS.head_s - 1.0)
    await place.says(post()[10:20])
    await place.passes(1.0 - SOON_S)
    assert place.answers() == []
    await place.passes(SOON_S)
    assert place.answers() == [408]
    assert place.served == []


async def test_the_head_of_a_later_request_has_its_time_too(place: Place) -> None:
    await place.says(post())
    await place.passes(LIMITS.keep_alive_s - SOON_S)
    await place.says(post()[:10])
    await place.passes(LIMITS.head_s - SOON_S)
    assert place.answers() == [200]
    await place.passes(SOON_S)
    assert place.answers() == [200, 408]


async def test_a_body_has_its_time_from_its_head_on_and_is_then_answered_without_it(
    place: Place,
) -> None:
    await place.passes(LIMITS.head_s - SOON_S)
    await place.says(post()[:-3])
    await place.passes(LIMITS.body_s - 1.0)
    await place.says(b"l")
    await place.passes(1.0 - SOON_S)
    assert place.served == []
    await place.passes(SOON_S)
    assert place.answers() == [408]
    assert place.served == ["/a"], "its door tells why, in its own words"


async def test_a_connection_is_kept_for_a_while_after_each_answer(place: Place) -> None:
    for _ in range(2):
        await place.says(post())
        await place.passes(LIMITS.keep_alive_s - SOON_S)
        assert not place.line.closing
    await place.passes(SOON_S)
    assert (place.line.closing, place.answers()) == (True, [200, 200])


async def test_who_was_refused_at_its_head_may_send_the_rest_in_the_time_of_a_body(
    place: Place,
) -> None:
    await place.says(post("/refused")[:-3])
    assert place.answers() == [200]
    await place.passes(LIMITS.body_s - SOON_S)
    assert not place.line.closing
    await place.says(b"llo" + post())
    assert place.answers() == [200, 200]
    await place.says(post("/refused")[:-3])
    await place.passes(LIMITS.body_s)
    assert place.connection.closed


async def test_what_is_sent_ahead_of_an_answer_is_read_on_once_it_has_been_answered(
    place: Place,
) -> None:
    await place.says(post("/slow"))
    assert place.line.reads
    await place.says(post("/slow") * 2)
    assert not place.line.reads, "nobody makes us keep more than what has come"
    place.may_go.release()
    await place.goes_on()
    assert (len(place.served), place.line.reads) == (2, False)
    place.may_go.release()
    await place.goes_on()
    assert (len(place.served), place.line.reads) == (3, True)
    place.may_go.release()
    await place.says(post("/d"))
    assert place.answers() == [200] * 4


async def test_of_too_many_that_are_sent_ahead_none_is_served(place: Place) -> None:
    await place.says(post("/slow") + post() * (LIMITS.ahead_max + 1))
    place.may_go.release()
    await place.goes_on()
    assert (place.served, place.answers()) == (["/slow"], [200])
    assert place.connection.closed


@pytest.mark.parametrize("ahead", [b"", post("/b")])
async def test_nonsense_behind_a_request_is_told_by_the_close_that_follows_its_answer(
    place: Place, ahead: bytes
) -> None:
    await place.says(post("/slow") + ahead)
    await place.says(b"NONSENSE\r\n\r\n")
    assert (place.connection.closed, place.line.reads) == (False, False)
    place.may_go.release()
    await place.goes_on()
    assert (place.served, place.answers()) == (["/slow"], [200])
    assert b"connection: close\r\n" in place.line.written
    assert place.connection.closed
    assert place.line.reads, "who is closed upon unread bytes loses the answer"


async def test_an_answer_in_pieces_goes_on_as_its_caller_takes_it(place: Place) -> None:
    place.connection.pause_writing()
    await place.says(post("/pieces"))
    assert place.line.written.count(b"piece") == 1
    place.connection.resume_writing()
    await place.goes_on()
    assert place.line.written.count(b"piece") == 3


async def test_who_is_to_take_an_answer_has_as_long_as_was_said_and_no_longer(
    place: Place,
) -> None:
    place.connection.pause_writing()
    await place.says(post("/pieces?30"))
    await place.passes(30.0 - SOON_S)
    assert not place.line.aborted
    await place.passes(SOON_S)
    assert place.line.aborted


@pytest.mark.parametrize(("said", "kept_s"), [("?500", 500.0), ("?5", 75.0), ("", 75.0)])
async def test_who_takes_a_whole_answer_slowly_is_waited_for_as_long_as_was_said(
    place: Place, said: str, kept_s: float
) -> None:
    place.connection.pause_writing()
    await place.says(post(f"/a{said}"))
    await place.passes(kept_s - SOON_S)
    assert not place.line.closing
    await place.passes(SOON_S)
    assert place.line.closing


async def test_time_for_an_answer_that_was_taken_keeps_no_connection(place: Place) -> None:
    await place.says(post("/a?500"))
    await place.passes(LIMITS.keep_alive_s)
    assert place.line.closing


async def test_who_still_sends_when_it_was_refused_is_heard_a_while_and_then_cut_off(
    place: Place,
) -> None:
    await place.says(b"POST /a HTTP/1.1\r\nhost: x\r\nhost: y\r\ncontent-length: 9\r\n\r\n")
    assert (place.answers(), place.line.eof, place.line.closing) == ([400], True, False)
    await place.says(post() * 3)
    assert (place.answers(), place.served) == ([400], [])
    await place.passes(LINGERS_S - SOON_S)
    assert not place.line.aborted
    await place.passes(SOON_S)
    assert place.line.aborted


async def test_who_still_sends_a_body_that_was_refused_is_heard_too(place: Place) -> None:
    await place.says(b"POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n")
    assert (place.answers(), place.line.eof, place.line.closing) == ([413], True, False)


async def test_who_sends_without_end_after_it_was_refused_is_cut_off_at_once(place: Place) -> None:
    await place.says(b"POST /a HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n")
    await place.says(b"x" * LIMITS.discarded_bytes_max)
    assert not place.line.aborted
    await place.says(b"x")
    assert place.line.aborted


async def test_time_in_which_nothing_could_be_heard_is_not_held_against_a_caller(
    place: Place,
) -> None:
    await place.says(post()[:-2])
    for _ in range(3):
        place.clock.now_s += 100.0
        place.connection.excuse(100.0)
        await place.passes(0.0)
    await place.says(b"l")
    await place.passes(LIMITS.body_s - SOON_S)
    assert place.answers() == []
    await place.passes(SOON_S)
    assert place.answers() == [408]


async def test_time_in_which_nothing_could_be_sent_is_not_held_against_who_takes_an_answer(
    place: Place,
) -> None:
    place.connection.pause_writing()
    await place.says(post("/pieces?30"))
    place.clock.now_s += 100.0
    place.connection.excuse(100.0)
    await place.passes(30.0 - SOON_S)
    assert not place.line.aborted
    await place.passes(SOON_S)
    assert place.line.aborted


async def test_a_door_that_reads_as_it_comes_waits_for_a_body_as_long_as_any(place: Place) -> None:
    await place.says(post("/app")[:-1])
    await place.passes(LIMITS.body_s - SOON_S)
    assert not place.line.aborted
    await place.passes(SOON_S)
    assert place.line.aborted


async def test_who_has_sent_all_waits_for_its_answer_without_end(place: Place) -> None:
    for path in ("/app", "/slow"):
        await place.says(post(path))
        await place.passes(10 * LIMITS.body_s)
        place.may_go.release()
        await place.goes_on()
    assert place.answers() == [200, 200]


async def test_who_asks_nothing_and_who_has_begun_is_told_apart() -> None:
    told = {}
    for said in (b"", post()[:9], post()[:-1], post("/slow"), post("/refused")[:-1], b"N\r\n"):
        place = Place()
        await place.says(said)
        told[said] = place.connection.asks_nothing, place.connection.has_begun
        place.connection.connection_lost(None)
    assert list(told.values()) == [
        (True, False),
        (True, True),
        (False, False),
        (False, False),
        (True, False),
        (True, False),
    ]
    place = Place()
    await place.says(post())
    assert (place.connection.asks_nothing, place.connection.has_begun) == (True, False)
    place.line.waiting_bytes = 1
    assert (place.connection.asks_nothing, place.connection.has_begun) == (True, True)
    place.line.closing = True
    assert not place.connection.asks_nothing
    place.connection.connection_lost(None)


async def test_a_body_is_awaited_while_nothing_but_its_caller_delays_it(place: Place) -> None:
    connection = place.connection
    assert connection.awaited is None
    await place.says(post("/app")[:-1])
    awaited = connection.awaited
    assert awaited is not None
    assert awaited.path == "/app"
    await place.says(b"o")
    assert connection.awaited is None, "it is there"
    await place.says(post("/next")[:-1])
    assert connection.awaited is None, "another is served before it"
    place.may_go.release()
    await place.goes_on()
    awaited = connection.awaited
    assert awaited is not None
    assert awaited.path == "/next"
    await place.says(b"o" + post("/refused")[:-1])
    assert connection.awaited is None, "it has been answered without its body"


async def test_who_is_cut_short_is_told_so_unless_it_takes_nothing(place: Place) -> None:
    await place.says(post()[:-1])
    place.connection.cut_short()
    assert (place.answers(), place.line.aborted, place.line.closing) == ([408], False, True)
    assert not place.connections
    other = Place()
    other.line.waiting_bytes = 1
    await other.says(post()[:-1])
    other.connection.cut_short()
    assert (other.line.aborted, other.answers()) == (True, [])
    other.connection.connection_lost(None)  # as its transport tells it afterwards


async def test_who_leaves_wakes_what_waits_for_it_to_take_an_answer(place: Place) -> None:
    place.connection.pause_writing()
    writable = place.connection.writable
    assert writable is not None
    place.connection.pause_writing()
    place.connection.connection_lost(None)
    assert writable.done()
    assert place.connection.closed
    assert not place.connections


@pytest.mark.parametrize("path", ["/slow", "/app"])
async def test_who_leaves_ends_what_is_done_for_it(place: Place, path: str) -> None:
    await place.says(post(path))
    place.connection.connection_lost(None)
    place.may_go.release()
    await place.goes_on()
    assert (place.served, place.ended) == ([path], [])


async def test_who_leaves_ends_nothing_of_what_was_answered_and_begins_nothing(
    place: Place,
) -> None:
    await place.says(post("/after"))
    await place.says(post("/b"))
    assert place.answers() == [200]
    place.connection.connection_lost(None)
    place.may_go.release()
    await place.goes_on()
    assert (place.served, place.ended) == (["/after"], ["/after"])


async def test_a_request_waits_for_what_is_done_behind_the_answer_before_it(place: Place) -> None:
    await place.says(post("/after"))
    await place.says(post("/b"))
    assert place.served == ["/after"]
    place.may_go.release()
    await place.goes_on()
    assert (place.served, place.answers()) == (["/after", "/b"], [200, 200])


async def test_a_handler_that_is_cancelled_behind_its_answer_is_the_end_of_nothing_else(
    place: Place,
) -> None:
    await place.says(post("/cancelled"))
    await place.says(post("/b"))
    assert (place.served, place.answers()) == (["/cancelled", "/b"], [200, 200])


async def test_a_handler_that_breaks_closes_its_connection_and_is_told_of_once() -> None:
    place = Place()
    with capture_logs() as logs:
        await place.says(post("/broken"))
        assert place.connection.closed
        await place.says(post())
    assert [each["event"] for each in logs] == ["request_failed_unexpectedly"]
    assert place.served == ["/broken"]
    place.connection.connection_lost(None)


async def test_a_server_that_stops_closes_behind_an_answer(place: Place) -> None:
    await place.says(post("/slow"))
    place.stopping = True
    assert not place.connection.closed
    place.may_go.release()
    await place.goes_on()
    assert (place.answers(), place.connection.closed) == ([200], True)
